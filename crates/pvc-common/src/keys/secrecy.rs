//! Which values of the store are secrets.

/// Whether the value at `path` is a secret: a BMC's password, or what lets somebody in. Whoever shows, logs or copies
/// values by their paths (a backup, say) leaves these out unless he was asked for them by name.
pub fn holds_secret(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match parts.next() {
        Some("access") => true,
        Some("nodes") => parts.nth(1) == Some("ipmipassword"),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys;

    // A backup that lies on a file server with these in it gives the cluster away.
    #[test]
    fn passwords_and_accounts_are_secrets_and_nothing_else_is() {
        let node = keys::node(&pvc_core::ids::NodeName::new("hv1").unwrap());
        assert!(holds_secret(node.ipmi_password().path()));
        assert!(!holds_secret(node.ipmi_hostname().path()));
        assert!(!holds_secret(node.path()));
        assert!(holds_secret("/access/tokens/grafana"));
        assert!(holds_secret("/access"));
        assert!(!holds_secret("/accessories"));
        assert!(!holds_secret("/domains"));
        assert!(!holds_secret("/"));
    }
}
