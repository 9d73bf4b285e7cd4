"""New folders for one suite."""


class Folders:
    def __init__(self, daemon, name):
        self.work, self.count = daemon.work / name, 0
        self.work.mkdir()

    def folder(self):
        self.count += 1
        folder = self.work / str(self.count)
        folder.mkdir()
        return folder
