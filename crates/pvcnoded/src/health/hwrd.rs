//! Arrays of hardware RAID controllers are whole: MegaRAID (`megacli`), HPE Smart Array (`ssacli`), Dell BOSS (`mvcli`).

use std::time::Duration;

use futures::future::join_all;
use pvc_common::command::{CommandError, CommandRunner, Invocation, Program};
use serde_json::{Map, Value, json};

use super::Finding;

/// What an array takes that is not whole, and a tool that told of arrays before and fails now.
const NOT_WHOLE: u32 = 50;
/// What an array takes whose state nobody tells.
const NO_STATE: u32 = 10;
/// How long one tool may take: a controller under load answers slowly.
const LIMIT: Duration = Duration::from_secs(20);

/// A maker's tool.
#[derive(Debug, Clone, Copy)]
struct Tool {
    program: Program,
    args: &'static [&'static str],
    /// The arrays in its output, each with its state if it has one.
    arrays: fn(&str) -> Vec<Array>,
    /// The state of an array that is whole.
    whole: &'static str,
}

/// An array by its name, and its state.
type Array = (String, Option<String>);

const TOOLS: [Tool; 3] = [
    Tool {
        program: Program::Megacli,
        args: &["-LDInfo", "-Lall", "-aALL", "-NoLog"],
        arrays: of_megacli,
        whole: "Optimal",
    },
    Tool {
        program: Program::Ssacli,
        args: &["ctrl", "all", "show", "config"],
        arrays: of_ssacli,
        whole: "OK",
    },
    Tool {
        program: Program::Mvcli,
        args: &["info", "-o", "vd"],
        arrays: of_mvcli,
        whole: "functional",
    },
];

/// `before` is what this check found last: a tool that has told of arrays and fails now is no good sign, while one that
/// has no controller may fail for ever.
pub(super) async fn check<R: CommandRunner>(commands: &R, before: Option<&Finding>) -> Finding {
    let asked = TOOLS.iter().map(|tool| {
        let call = Invocation::new(tool.program, LIMIT)
            .args(tool.args.iter().copied())
            .output_limit(1024 * 1024);
        async move { commands.run(&call).await }
    });
    let mut answers = Vec::new();
    for (tool, answer) in TOOLS.iter().zip(join_all(asked).await) {
        match answer {
            Ok(output) => answers.push((*tool, Ok((tool.arrays)(&output.text())))),
            Err(CommandError::NotFound { .. }) => {}
            Err(error) => answers.push((*tool, Err(error.to_string()))),
        }
    }
    judge(&answers, before.map(|finding| &finding.data))
}

fn judge(answers: &[(Tool, Result<Vec<Array>, String>)], before: Option<&Value>) -> Finding {
    let (mut delta, mut told, mut data) = (0, Vec::new(), Map::new());
    for (tool, answer) in answers {
        let name = tool.program.name();
        match answer {
            Ok(arrays) if arrays.is_empty() => {}
            Ok(arrays) => {
                let mut states = Map::new();
                for (array, state) in arrays {
                    let (cost, shown) = match state.as_deref() {
                        Some(state) if state.eq_ignore_ascii_case(tool.whole) => (0, state),
                        Some(state) => (NOT_WHOLE, state),
                        None => (NO_STATE, "no state"),
                    };
                    delta += cost;
                    told.push(format!("{name} {array}: {shown}"));
                    states.insert(array.clone(), json!(state));
                }
                data.insert(name.to_owned(), Value::Object(states));
            }
            Err(reason) => {
                if let Some(known) = before.and_then(|before| before.get(name)) {
                    delta += NOT_WHOLE;
                    told.push(format!("{name} told of arrays and fails now ({reason})"));
                    data.insert(name.to_owned(), known.clone());
                }
            }
        }
    }
    if told.is_empty() {
        return Finding::not_checked("no hardware RAID controller is found by megacli, ssacli or mvcli");
    }
    Finding::new(delta, told.join("; "), Value::Object(data))
}

/// `NAME : VALUE`.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim(), value.trim()))
}

/// Blocks that each begin with a field of one of the names in `begin`, and have one named `state`.
fn blocks(text: &str, begin: &str, state: &str) -> Vec<Array> {
    let mut arrays: Vec<Array> = Vec::new();
    for (name, value) in text.lines().filter_map(field) {
        if name.eq_ignore_ascii_case(begin) {
            arrays.push((value.to_owned(), None));
        } else if name.eq_ignore_ascii_case(state)
            && !value.is_empty()
            && let Some((_, known @ None)) = arrays.last_mut()
        {
            *known = Some(value.to_owned());
        }
    }
    arrays
}

/// `Virtual Drive: 0 (Target Id: 0)` and further down `State : Optimal`. Adapters are told apart by their order.
fn of_megacli(text: &str) -> Vec<Array> {
    let adapters = text.split("Adapter ").enumerate();
    let arrays = adapters.flat_map(|(part, text)| {
        blocks(text, "Virtual Drive", "State")
            .into_iter()
            .map(move |(name, state)| {
                let number = name.split_whitespace().next().unwrap_or("?").to_owned();
                // The text before the first adapter has none.
                (
                    format!("adapter {} drive {number}", part.saturating_sub(1)),
                    state,
                )
            })
    });
    arrays.collect()
}

/// `logicaldrive 1 (1.7 TB, RAID 5, OK)`: the state comes last.
fn of_ssacli(text: &str) -> Vec<Array> {
    let mut controller = 0_u32;
    let mut arrays = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.contains(" in Slot ") {
            controller += 1;
        }
        let Some(rest) = line.strip_prefix("logicaldrive ") else {
            continue;
        };
        let number = rest.split_whitespace().next().unwrap_or("?");
        let inside = rest.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        let state = inside.and_then(|words| words.rsplit(", ").next());
        arrays.push((
            format!("controller {controller} drive {number}"),
            state.filter(|state| !state.is_empty()).map(str::to_owned),
        ));
    }
    arrays
}

/// `id: 0` or `VD ID: 0`, and further down `status: functional`.
fn of_mvcli(text: &str) -> Vec<Array> {
    let mut arrays = blocks(text, "id", "status");
    if arrays.is_empty() {
        arrays = blocks(text, "VD ID", "status");
    }
    arrays
        .into_iter()
        .map(|(name, state)| (format!("drive {name}"), state))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGACLI: &str = "\n\nAdapter 0 -- Virtual Drive Information:\nVirtual Drive: 0 (Target Id: 0)\nName                :\n\
        RAID Level          : Primary-1, Secondary-0, RAID Level Qualifier-0\nState               : Optimal\nNumber Of Drives    : 2\n\
        Virtual Drive: 1 (Target Id: 1)\nName                :\nState               : Degraded\n\nExit Code: 0x00\n";
    const SSACLI: &str = "\nSmart Array P440ar in Slot 0 (Embedded)   (sn: PDNLH0BRH7V7GC)\n\n   Array A (SAS, Unused Space: 0  MB)\n\n\
        \x20     logicaldrive 1 (279.4 GB, RAID 1, OK)\n\n\
        \x20     physicaldrive 1I:1:1 (port 1I:box 1:bay 1, SAS HDD, 300 GB, OK)\n\n\
        \x20     logicaldrive 2 (1.7 TB, RAID 5, Interim Recovery Mode)\n";
    const MVCLI: &str = "SG driver version 3.5.36.\n\nVirtual Disk Information\n-------------------------\nid:                  0\n\
        name:                VD_R1_1\nstatus:              functional\nRAID mode:           RAID1\n\nTotal # of VD:       1\n";

    fn found(place: usize, text: &str) -> Finding {
        let tool = TOOLS[place];
        judge(&[(tool, Ok((tool.arrays)(text)))], None)
    }

    // Such a controller hides its disks from the kernel: nobody else sees that one has failed, until the second does.
    #[test]
    fn an_array_that_is_not_whole_is_found_with_each_tool() {
        for (place, text, delta, message) in [
            (
                0,
                MEGACLI,
                50,
                "megacli adapter 0 drive 0: Optimal; megacli adapter 0 drive 1: Degraded",
            ),
            (
                1,
                SSACLI,
                50,
                "ssacli controller 1 drive 1: OK; ssacli controller 1 drive 2: Interim Recovery Mode",
            ),
            (2, MVCLI, 0, "mvcli drive 0: functional"),
        ] {
            let finding = found(place, text);
            assert_eq!((finding.delta, finding.message.as_str()), (delta, message));
        }
        assert_eq!(found(2, &MVCLI.replace("functional", "degraded")).delta, 50);
        let newer = "VD ID:               0\nName:                VD_0\nStatus:              Functional\n";
        assert_eq!(found(2, newer).message, "mvcli drive 0: Functional");
    }

    #[test]
    fn an_array_without_a_state_costs_less_and_no_controller_nothing() {
        assert_eq!(
            found(
                0,
                "Adapter 0 -- x:\nVirtual Drive: 0 (Target Id: 0)\nSize : 1 GB\n"
            )
            .delta,
            10
        );
        assert_eq!(found(1, "logicaldrive 1\n").delta, 10);
        for (place, text) in [
            (0, "\nExit Code: 0x00\n"),
            (1, ""),
            (2, "SG driver version 3.5.36.\nNo adapter.\n"),
        ] {
            let finding = found(place, text);
            assert_eq!(finding.delta, 0);
            assert!(finding.message.starts_with("not checked"), "{}", finding.message);
        }
    }

    #[test]
    fn a_tool_that_fails_counts_once_it_has_told_of_arrays() {
        let fails = [(TOOLS[0], Err("exit status 1".to_owned()))];
        assert_eq!(judge(&fails, None).delta, 0);
        assert_eq!(judge(&fails, Some(&json!({"ssacli": {}}))).delta, 0);
        let before = found(0, MEGACLI);
        let finding = judge(&fails, Some(&before.data));
        assert_eq!(finding.delta, 50);
        assert!(finding.message.contains("exit status 1"), "{}", finding.message);
        // It is known as long as it lasts.
        assert_eq!(judge(&fails, Some(&finding.data)).delta, 50);
    }
}
