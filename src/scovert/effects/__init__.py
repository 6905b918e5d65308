"""Treatment effects that hold although something unmeasured differs between the arms."""
