//! `pvc token`: tokens of the API.

use clap::Subcommand;
use comfy_table::Cell;
use pvc_api::access::{CreatedToken, Token};

use crate::client::{segment, typed};
use crate::confirm::{Answer, confirm};
use crate::error::Result;
use crate::output::{self, Format, formats, or_dash};
use crate::session::Session;
use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its text is printed once, here, and never shown again
    Create {
        /// Its name
        name: String,
        /// What its holder may do: look (viewer), run guests and nodes as well (operator), everything (admin)
        #[arg(short, long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// What it is for
        #[arg(short, long, default_value = "")]
        description: String,
        /// In which time it expires: 90d, 12h, 30m; never if this is not given
        #[arg(short, long, value_name = "TIME", value_parser = time::span)]
        expires: Option<u64>,
        /// How to show it
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
        format: Format,
    },
    /// List tokens
    List {
        /// How to show them
        #[arg(short, long, default_value = "pretty", value_parser = formats(&["pretty", "raw", "json", "json-pretty"]))]
        format: Format,
    },
    /// Remove a token: it lets nobody in any more
    Remove {
        /// Its name
        name: String,
        /// Ask nothing
        #[arg(short, long)]
        yes: bool,
    },
}

pub(crate) fn run(command: &TokenCommand, session: &Session) -> Result<()> {
    match command {
        TokenCommand::Create {
            name,
            role,
            description,
            expires,
            format,
        } => create(session, name, role, description, *expires, *format),
        TokenCommand::List { format } => list(session, *format),
        TokenCommand::Remove { name, yes } => remove(session, name, *yes),
    }
}

fn create(
    session: &Session,
    name: &str,
    role: &str,
    description: &str,
    expires: Option<u64>,
    format: Format,
) -> Result<()> {
    let expires_in = expires.map(|seconds| seconds.to_string());
    let mut form = vec![("name", name), ("role", role), ("description", description)];
    if let Some(expires_in) = &expires_in {
        form.push(("expires_in", expires_in));
    }
    let value = session.client.post_value("/token", &form)?;
    if format.is_json() {
        output::print(&output::json(&value, format)?);
        return Ok(());
    }
    let created: CreatedToken = typed(value)?;
    if format != Format::Raw {
        // Beside the token, so that a script that takes the output has the token alone.
        session.remark(&format!("{}:", created.message));
    }
    output::line(created.token);
    Ok(())
}

fn list(session: &Session, format: Format) -> Result<()> {
    let value = session.client.get("/token", &[])?;
    if format.is_json() {
        output::print(&output::json(&value, format)?);
        return Ok(());
    }
    let tokens: Vec<Token> = typed(value)?;
    if format == Format::Raw {
        output::print(&output::words(
            tokens.iter().filter_map(|token| token.name.as_ref()),
        ));
        return Ok(());
    }
    let mut table = output::table(&["Token", "Role", "For", "Made by", "Expires", "Last used", "From"]);
    for token in &tokens {
        let moment = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), time::moment);
        let expires = match token.expires_at {
            None => "never".to_owned(),
            Some(_) if token.expired => "expired".to_owned(),
            Some(at) => time::moment(at),
        };
        table.add_row(vec![
            Cell::new(token.name.as_deref().unwrap_or("(configuration)")),
            Cell::new(&token.role),
            Cell::new(or_dash(&token.description)),
            Cell::new(token.created_by.as_deref().unwrap_or("-")),
            Cell::new(expires),
            Cell::new(moment(token.last_used_at)),
            Cell::new(or_dash(token.last_used_from.as_deref().unwrap_or_default())),
        ]);
    }
    output::print(&output::render(table));
    Ok(())
}

fn remove(session: &Session, name: &str, yes: bool) -> Result<()> {
    let question = format!("Remove token {name}? Whoever uses it is locked out.");
    match confirm(&question, session.asking(yes))? {
        Answer::Yes => {
            session.say(&session.client.delete(&format!("/token/{}", segment(name)))?);
            Ok(())
        }
        Answer::No => Ok(()),
    }
}
