//! `pvc user`: people who log in to the web interface with a password.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use comfy_table::Cell;
use pvc_api::access::User;

use crate::client::{segment, typed};
use crate::confirm::{Answer, confirm};
use crate::connection::read_new_password;
use crate::error::Result;
use crate::output::{self, Format, formats};
use crate::session::Session;
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user
    Add {
        /// His name
        name: String,
        /// What he may do: look (viewer), run guests and nodes as well (operator), everything (admin)
        #[arg(short, long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// Read his password from this file (- for standard input; typed unseen at a terminal)
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        password_file: PathBuf,
    },
    /// List users
    List {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
        format: Format,
    },
    /// Change a user's role or password; a new password ends his sessions
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Modify {
        /// His name
        name: String,
        /// What he may do from now on
        #[arg(short, long, group = "change", value_parser = ["viewer", "operator", "admin"])]
        role: Option<String>,
        /// Read his new password from this file (- for standard input; typed unseen at a terminal)
        #[arg(short, long, group = "change", value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Remove a user, which ends his sessions
    Remove {
        /// His name
        name: String,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) fn run(command: &UserCommand, session: &Session) -> Result<()> {
    match command {
        UserCommand::Add {
            name,
            role,
            password_file,
        } => {
            let password = read_new_password(password_file)?;
            let form = [
                ("username", name.as_str()),
                ("role", role),
                ("password", &password),
            ];
            session.say(&session.client.post("/user", &form)?);
            Ok(())
        }
        UserCommand::List { format } => list(session, *format),
        UserCommand::Modify {
            name,
            role,
            password_file,
        } => modify(session, name, role.as_deref(), password_file.as_deref()),
        UserCommand::Remove { name, yes } => {
            match confirm(&format!("Remove user {name}?"), session.asking(*yes))? {
                Answer::Yes => session.say(&session.client.delete(&path(name))?),
                Answer::No => {}
            }
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/user/{}", segment(name))
}

fn modify(session: &Session, name: &str, role: Option<&str>, password_file: Option<&Path>) -> Result<()> {
    let password = password_file.map(read_new_password).transpose()?;
    let mut form = Vec::new();
    if let Some(role) = role {
        form.push(("role", role));
    }
    if let Some(password) = &password {
        form.push(("password", password));
    }
    session.say(&session.client.put(&path(name), &form)?);
    Ok(())
}

fn list(session: &Session, format: Format) -> Result<()> {
    let value = session.client.get("/user", &[])?;
    if format.is_json() {
        output::print(&output::json(&value, format)?);
        return Ok(());
    }
    let users: Vec<User> = typed(value)?;
    if format == Format::Raw {
        output::print(&output::words(users.iter().map(|user| &user.name)));
        return Ok(());
    }
    let mut table = output::table(&["User", "Role", "Added", "By"]);
    for user in &users {
        table.add_row(vec![
            Cell::new(&user.name),
            Cell::new(&user.role),
            Cell::new(time::moment(user.created_at)),
            Cell::new(&user.created_by),
        ]);
    }
    output::print(&output::render(table));
    Ok(())
}
