//! `pentimento keys`: make, list and revoke API keys, also beside a running server.

use crate::calendar;
use crate::data_dir::DataArg;
use crate::failure::Failure;
use crate::terminal;
use app::keys::Keys;
use clap::Subcommand;
use domain::fault::{ErrorCode, Fault};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    data: DataArg,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key; prints its token, alone, this once.
    Create {
        /// What to call it in lists: who has it, or what for.
        #[arg(long)]
        name: String,
    },
    /// List the keys, revoked ones included.
    List,
    /// Refuse a key from now on.
    Revoke {
        /// The key's id, as the list tells it; not the token.
        id: String,
    },
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.data.dir();
    let store = store::sqlite::open_keys(&dir).map_err(Failure::because)?;
    let keys = Keys::new(store);
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(Failure::because)?;
    runtime.block_on(async {
        match &args.command {
            Command::Create { name } => create(&keys, name).await,
            Command::List => list(&keys, &args.data).await,
            Command::Revoke { id } => revoke(&keys, id).await,
        }
    })
}

async fn create(keys: &Keys, name: &str) -> Result<(), Failure> {
    let new = keys.create(name).await.map_err(refused)?;
    let id = &new.key.id;
    if let Err(error) = terminal::tell(new.secret.expose()) {
        // Nobody has the token, so nobody shall have the key.
        keys.revoke(id.as_str()).await.map_err(refused)?;
        return Err(Failure::because(format!("the token could not be shown, so {id} is revoked: {error}")));
    }
    terminal::complain(&format!("{id} ({}): this is the token's only showing; keep it safe", new.key.name));
    Ok(())
}

async fn list(keys: &Keys, data: &DataArg) -> Result<(), Failure> {
    let keys = keys.list().await.map_err(refused)?;
    if keys.is_empty() {
        terminal::complain(&format!("no keys yet; `pentimento keys create --name N{}` makes one", data.option()));
        return Ok(());
    }
    for key in keys {
        let state = key.revoked_ms.map_or("active".to_owned(), |at| format!("revoked {}", calendar::utc(at)));
        terminal::say(&format!("{}  {}  {state:<28}  {}", key.id, calendar::utc(key.created_ms), key.name))?;
    }
    Ok(())
}

async fn revoke(keys: &Keys, id: &str) -> Result<(), Failure> {
    keys.revoke(id).await.map_err(refused)?;
    terminal::complain(&format!("{id} is revoked"));
    Ok(())
}

fn refused(fault: Fault) -> Failure {
    match fault.code {
        ErrorCode::Invalid => Failure::usage(fault.detail),
        _ => Failure::because(fault.detail),
    }
}
