"""What every fault is: a kind, a phase or file that it strikes, and a verdict on what came of it."""

RECOVERED, REFUSED = "recovered", "refused"
MISSED = "missed"  # the run was through before the fault could strike: another is drawn


class Fault:
    kind = where = ""
    detail = ""  # what was drawn, once it is

    def strike(self, scene, rng):
        """Draws its particulars, does it, and judges what came of it: RECOVERED, REFUSED or MISSED, or raises Failure."""
        raise NotImplementedError
