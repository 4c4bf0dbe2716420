"""The subcommands of `amnet`, a module each (`ls` is with `cp`)."""
