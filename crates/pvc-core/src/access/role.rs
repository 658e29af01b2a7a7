//! What a caller of the API may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::states::{UnknownWord, words};

words! {
    /// What a caller of the API may do. Each role may do what those before it may.
    Role, "role" {
        /// Look at everything that is no secret.
        Viewer = "viewer",
        /// Run the cluster from day to day: guests, nodes, faults.
        Operator = "operator",
        /// Everything: who has access, what was done by whom, and what protects guests from running twice.
        Admin = "admin",
    }
}

impl Role {
    /// Whether who has this role may do what needs `needed`.
    pub fn covers(self, needed: Role) -> bool {
        self >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_those_before_it_may() {
        for (index, role) in Role::ALL.iter().enumerate() {
            for (needed_index, needed) in Role::ALL.iter().enumerate() {
                assert_eq!(role.covers(*needed), index >= needed_index, "{role} for {needed}");
            }
            assert_eq!(role.as_str().parse::<Role>().unwrap(), *role);
        }
        assert!("root".parse::<Role>().is_err());
    }
}
