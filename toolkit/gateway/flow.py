"""How much of what a caller sends is taken at a time."""

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Pauses reading; while it is held, only its holder lets it go on."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if self.read_paused and not self.held:
            self.read_paused = False
            self._transport.resume_reading()

    def hold(self) -> None:
        """Read no more until the holder has set `held` to false and resumed."""
        self.held = True
        self.pause_reading()
