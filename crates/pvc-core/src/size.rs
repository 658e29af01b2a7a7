//! Sizes as Ceph and PVC write them for people: `10G`, `512M`, `1.5 TiB`. Every step is 1024.

/// The units, each 1024 times the one before it.
const UNITS: [char; 9] = ['B', 'K', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'];

/// The largest number that is shown before the next unit is taken.
const LARGEST_SHOWN: u64 = 9999;

/// The bytes that a text such as `10G`, `10 GiB` or `4096` stands for; a fraction of a byte is dropped.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit = unit.trim_start();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some(letter) => UNITS
            .iter()
            .position(|unit| *unit == letter.to_ascii_uppercase())?,
    };
    // `G`, `GB` and `GiB` mean the same; anything else is no unit.
    if !matches!(letters.as_str(), "" | "B" | "b" | "i" | "iB" | "ib") {
        return None;
    }
    let factor = 1024_u128.checked_pow(u32::try_from(power).ok()?)?;
    match number.split_once('.') {
        None => u64::try_from(number.parse::<u128>().ok()?.checked_mul(factor)?).ok(),
        Some((whole, fraction)) => {
            let digits = u32::try_from(fraction.len()).ok()?;
            let scale = 10_u128.checked_pow(digits)?;
            let whole = whole.parse::<u128>().ok()?.checked_mul(factor)?;
            let fraction = fraction.parse::<u128>().ok()?.checked_mul(factor)? / scale;
            u64::try_from(whole.checked_add(fraction)?).ok()
        }
    }
}

/// A size in the smallest unit in which it is at most 9999, rounded up: 10240 MiB stays `10G`.
pub fn bytes_text(bytes: u64) -> String {
    let mut rest = bytes;
    for unit in UNITS {
        if rest <= LARGEST_SHOWN {
            return format!("{rest}{unit}");
        }
        rest = rest.div_ceil(1024);
    }
    // Not reached: 2^64 bytes are 16 E.
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_ceph_are_read() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("10G", Some(10 << 30)),
            ("10GiB", Some(10 << 30)),
            ("1.5 TiB", Some(3 << 39)),
            ("0.5k", Some(512)),
            ("7B", Some(7)),
            ("", None),
            ("G", None),
            ("|", None),
            ("10 apples", None),
            ("1.2.3G", None),
            ("99999999999E", None),
            ("-1", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_smallest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0B"),
            (9999, "9999B"),
            (10_000, "10K"),
            (10 << 30, "10G"),
            (9999 << 20, "9999M"),
            (10_240 << 20, "10G"),
            ((10 << 30) + 1, "11G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(bytes_text(bytes), text, "{bytes}");
        }
    }
}
