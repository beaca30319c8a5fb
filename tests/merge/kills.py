"""Runs of merge that are killed in the middle."""

from coyo_labeler.merge.state import StateFolder


def kill_once(monkeypatch, iterations):
    """Kill the first run that has saved its state after so many iterations, and no later one.

    Returns a list to which the number of iterations in each saved state is added.
    """
    save, saved = StateFolder.save_checkpoint, []

    def save_or_die(self, state):
        save(self, state)
        saved.append(len(state.history))
        if saved[-1] == iterations and saved.count(iterations) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(StateFolder, "save_checkpoint", save_or_die)
    return saved
