"""Whether the tap is on. The server is never to notice what goes wrong here."""

import sys


class Switch:
    """On until something goes wrong; says each thing once."""

    def __init__(self):
        self.on, self.said, self.last = True, set(), []

    def say(self, key, text):
        if key in self.said:
            return
        self.said.add(key)
        try:
            print(f"qera tap: {text}", file=sys.stderr, flush=True)
        except Exception:  # standard error is closed: nobody listens
            pass

    def at_last(self, function):
        """Has `function` called when the tap goes off."""
        self.last.append(function)

    def off(self, reason):
        if not self.on:
            return
        self.on = False
        self.say("off", f"off: {reason}")
        for function in self.last:
            try:
                function()
            except Exception:
                pass

    def guarded(self, function, *arguments):
        """What the function returns; None where it fails, which switches the tap off, and where it
        is off."""
        if not self.on:
            return None
        try:
            return function(*arguments)
        except Exception as error:
            self.fail(error)
            return None

    def fail(self, error):
        self.off(f"{type(error).__name__}: {error} (the server goes on without it)")
