//! `run [options] ID`: create and start; without `--detach` the command lives as long as the container.

use anyhow::bail;
use corten_runtime::Console;

use super::{Answer, Context, create};
use crate::foreground;
use crate::options::Arguments;

pub fn run(arguments: Arguments, context: &Context) -> Answer {
    let create::Parsed { mut request, detach, keep, no_subreaper } = create::parse(arguments, true)?;
    let terminal = foreground::wants_terminal(&request.bundle.join("config.json"));
    if terminal && request.console == Console::None {
        if detach {
            bail!("cannot allocate tty if the command detaches, without --console-socket");
        }
        request.console = Console::Return;
    }
    if !detach && !no_subreaper {
        foreground::become_subreaper()?;
    }
    let signals = if detach { None } else { Some(foreground::catch_signals()?) };
    let created = context.runtime.create(&request)?;
    context.log.warnings(&created.warnings);
    let delete = || -> anyhow::Result<()> {
        let complaints = context.runtime.delete(&request.id, true)?;
        context.log.warnings(&complaints);
        Ok(())
    };
    if let Err(error) = context.runtime.start(&request.id) {
        // The first error is the one to tell.
        let _ = delete();
        return Err(error.into());
    }
    let Some(signals) = signals else { return Ok(0) };
    let exit = foreground::accompany(&created.pidfd, created.console, &signals)?;
    if !keep {
        delete()?;
    }
    Ok(exit.shell_code() as u8)
}
