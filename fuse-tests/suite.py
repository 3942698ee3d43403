"""Drives LibreOffice as its users do, one process a user, with a profile and a name of his own.

suite.py all DIR                 makes, opens, edits, saves, saves as, with a backup copy: Writer, Calc, Impress in OOXML and ODF
suite.py make PATH...            makes each, of the kind and format that its name in DOCUMENTS stands for
suite.py hold USER PATH...       opens each and keeps them open until a line comes on standard input; then saves them with another text
suite.py second USER PATH...     opens each; prints whether it may be written, and what it says
suite.py told USER PATH          opens it in a window on $DISPLAY while another has it; prints what that user is told
suite.py crash PATH              in a window too: edits it, has it saved for recovery, and is killed; recovers it in a new process; prints what it says
suite.py autosave PATH           in a window too: types into it and waits until the program's own timer has saved a copy; is killed and recovers it
suite.py window PATH...          opens each in a window on $DISPLAY, types into it and saves by keys
"""
import atexit
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time

import uno
from com.sun.star.awt import Point, Size
from com.sun.star.util import URL

from office import NoConnectException, option

DOCUMENTS = {
    "text.docx": ("swriter", "MS Word 2007 XML"),
    "text.odt": ("swriter", "writer8"),
    "sheet.xlsx": ("scalc", "Calc MS Excel 2007 XML"),
    "sheet.ods": ("scalc", "calc8"),
    "slides.pptx": ("simpress", "Impress MS PowerPoint 2007 XML"),
    "slides.odp": ("simpress", "impress8"),
}

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry" xmlns:xs="http://www.w3.org/2001/XMLSchema">
<item oor:path="/org.openoffice.UserProfile/Data"><prop oor:name="givenname" oor:op="fuse"><value>{user}</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Save/Document"><prop oor:name="CreateBackup" oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Misc"><prop oor:name="FirstRun" oor:op="fuse"><value>false</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Misc"><prop oor:name="ShowTipOfTheDay" oor:op="fuse"><value>false</value></prop></item>
<item oor:path="/org.openoffice.Setup/Office"><prop oor:name="ooSetupInstCompleted" oor:op="fuse"><value>true</value></prop></item>
<item oor:path="/org.openoffice.Office.Common/Save/Document"><prop oor:name="WarnAlienFormat" oor:op="fuse"><value>false</value></prop></item>
{more}</oor:items>
"""

# A copy for recovery each minute. LibreOffice 7 reads the first place, where it is off unless told; newer ones the second.
AUTOSAVE = "\n".join(
    f'<item oor:path="/org.openoffice.Office.{path}"><prop oor:name="{name}" oor:op="fuse"><value>{value}</value></prop></item>'
    for path, name, value in (
        ("Common/Save/Document", "AutoSave", "true"),
        ("Common/Save/Document", "AutoSaveTimeIntervall", 1),
        ("Recovery/AutoSave", "Enabled", "true"),
        ("Recovery/AutoSave", "TimeIntervall", 1),
    )
)


class Office:
    """One running LibreOffice."""

    def __init__(self, profile, user, window=False, arguments=(), settings=""):
        os.makedirs(f"{profile}/user", exist_ok=True)
        kept = f"{profile}/user/registrymodifications.xcu"
        if not os.path.exists(kept):
            with open(kept, "w") as file:
                file.write(PROFILE.format(user=user, more=settings))
        pipe = f"skrin-{os.getpid()}-{time.monotonic_ns()}"
        # The program itself and not the script that starts it, so that a kill reaches it.
        command = ["/usr/lib/libreoffice/program/soffice.bin", "--nologo", "--nodefault", "--nofirststartwizard"]
        command += [] if window else ["--headless", "--norestore"]
        command += [f"-env:UserInstallation=file://{profile}", f"--accept=pipe,name={pipe};urp;", *arguments]
        self.process = subprocess.Popen(command)
        atexit.register(lambda: self.process.kill())
        local = uno.getComponentContext()
        resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
        for _ in range(3000):
            try:
                self.context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
                self.desktop = self.service("com.sun.star.frame.Desktop")
                return
            except NoConnectException:
                time.sleep(0.1)
            # It made its profile and wants to be started once more.
            if self.process.poll() == 81:
                self.process = subprocess.Popen(command)
            elif self.process.poll() is not None:
                break
        self.process.kill()
        sys.exit("LibreOffice did not start")

    def service(self, name):
        return self.context.ServiceManager.createInstanceWithContext(name, self.context)

    def end(self):
        try:
            self.desktop.terminate()
            self.process.wait(300)
        finally:
            self.process.kill()

    def load(self, path, *options, hidden=True):
        options = (option("Hidden", hidden), *options)
        document = self.desktop.loadComponentFromURL(uno.systemPathToFileUrl(path), "_blank", 0, options)
        if document is None:
            sys.exit(f"{path} does not open")
        return document


def write(document, text):
    if hasattr(document, "Text"):
        document.Text.setString(text)
    elif hasattr(document, "Sheets"):
        document.Sheets.getByIndex(0).getCellByPosition(0, 0).setString(text)
    else:
        page = document.DrawPages.getByIndex(0)
        for n in reversed(range(page.Count)):
            page.remove(page.getByIndex(n))
        shape = document.createInstance("com.sun.star.drawing.TextShape")
        shape.Position, shape.Size = Point(2000, 2000), Size(15000, 3000)
        page.add(shape)
        shape.String = text


def read(document):
    if hasattr(document, "Text"):
        return document.Text.getString()
    if hasattr(document, "Sheets"):
        return document.Sheets.getByIndex(0).getCellByPosition(0, 0).getString()
    page = document.DrawPages.getByIndex(0)
    texts = (page.getByIndex(n).getString() for n in range(page.Count))
    return " ".join(text for text in texts if text)


def lock_of(path):
    return os.path.join(os.path.dirname(path), f".~lock.{os.path.basename(path)}#")


def check(holds, text):
    if not holds:
        sys.exit(text)


def saved(document):
    document.store()
    check(not document.isModified(), "it was not saved")


def make(office, path):
    kind, filter_name = DOCUMENTS[os.path.basename(path)]
    document = office.desktop.loadComponentFromURL(f"private:factory/{kind}", "_blank", 0, (option("Hidden", True),))
    write(document, "made")
    document.storeToURL(uno.systemPathToFileUrl(path), (option("FilterName", filter_name),))
    document.close(True)


def make_each(profile, *paths):
    office = Office(profile, "Anna")
    for path in paths:
        make(office, path)
    office.end()


def work_on(office, path, filter_name, backups):
    make(office, path)
    document = office.load(path)
    check(not document.isReadonly(), f"{path} opened read-only")
    with open(lock_of(path)) as lock:
        check(lock.read().startswith("Anna"), "the lock file does not say who has it")
    check(read(document) == "made", f"{path}: {read(document)!r}")
    write(document, "edited")
    saved(document)
    write(document, "edited twice")
    saved(document)
    backup = os.path.join(backups, os.path.splitext(os.path.basename(path))[0] + ".bak")
    check(os.path.getsize(backup) > 0, f"{backup} is empty")
    os.remove(backup)

    other = os.path.join(os.path.dirname(path), "copy of " + os.path.basename(path))
    document.storeAsURL(uno.systemPathToFileUrl(other), (option("FilterName", filter_name),))
    check(not os.path.exists(lock_of(path)), "the lock of the old name stayed behind")
    check(os.path.exists(lock_of(other)), "the new name has no lock")
    write(document, "edited under another name")
    saved(document)
    document.close(True)
    check(not os.path.exists(lock_of(other)), "the lock stayed behind")
    for path, text in ((path, "edited twice"), (other, "edited under another name")):
        document = office.load(path, option("ReadOnly", True))
        check(read(document) == text, f"{path}: {read(document)!r}")
        document.close(True)


def all_kinds(profile, directory):
    office = Office(profile, "Anna")
    backups = os.path.join(directory, "backups")
    os.makedirs(backups)
    office.service("com.sun.star.util.PathSettings").Backup = uno.systemPathToFileUrl(backups)
    for name, (_, filter_name) in DOCUMENTS.items():
        work_on(office, os.path.join(directory, name), filter_name, backups)
    office.end()


def hold(profile, user, *paths):
    office = Office(profile, user)
    documents = [office.load(path) for path in paths]
    for path, document in zip(paths, documents):
        check(not document.isReadonly(), f"{path} is read-only")
    print("open", flush=True)
    check(sys.stdin.readline(), "whoever started this is gone")
    for document in documents:
        write(document, f"edited by {user}")
        saved(document)
        document.close(True)
    office.end()


def texts(accessible, depth=12):
    """What a window says, by what it tells the blind."""
    context = accessible.getAccessibleContext()
    yield context.getAccessibleName()
    if hasattr(context, "getText"):
        yield context.getText()
    for n in range(min(context.getAccessibleChildCount(), 40) if depth else 0):
        yield from texts(context.getAccessibleChild(n), depth - 1)


def second(profile, user, *paths):
    office = Office(profile, user)
    for path in paths:
        document = office.load(path)
        print(f"read-only: {document.isReadonly()}")
        print(f"text: {read(document)}")
        document.close(True)
    office.end()


def told(profile, user, path):
    office = Office(profile, user, window=True, arguments=[path])
    toolkit = office.service("com.sun.star.awt.Toolkit")
    end = time.monotonic() + 240
    while time.monotonic() < end:
        said = []
        try:
            for n in range(toolkit.getTopWindowCount()):
                said += [text for text in texts(toolkit.getTopWindow(n)) if text]
        except uno.getClass("com.sun.star.uno.Exception"):
            # Windows come and go meanwhile.
            pass
        if any("locked for editing" in text for text in said):
            print("\n".join(said))
            return
        time.sleep(0.5)
    sys.exit("nothing was said of a lock")


def recovery(office, command):
    url = URL()
    url.Complete = "vnd.sun.star.autorecovery:" + command
    url = office.service("com.sun.star.util.URLTransformer").parseStrict(url)[1]
    office.context.getValueByName("/singletons/com.sun.star.frame.theAutoRecovery").dispatch(url, ())


def killed_when_noted(office, profile, copies):
    """It notes a moment later where a copy is."""
    for _ in range(3000):
        with open(f"{profile}/user/registrymodifications.xcu") as settings:
            noted = settings.read()
        if any(copy in noted for copy in copies()):
            break
        time.sleep(0.1)
    os.kill(office.process.pid, signal.SIGKILL)
    office.process.wait()


def recovered(profile):
    office = Office(profile, "Anna", window=True)
    recovery(office, "/doSessionRestore")
    documents = office.desktop.Components.createEnumeration()
    while documents.hasMoreElements():
        document = documents.nextElement()
        print(f"{document.URL}: {read(document)}")
        saved(document)
        document.close(True)
    office.end()


def opened_with_copies_beside(profile, path, settings=""):
    office = Office(profile, "Anna", window=True, settings=settings)
    backups = os.path.join(os.path.dirname(path), "backups")
    os.makedirs(backups, exist_ok=True)
    office.service("com.sun.star.util.PathSettings").Backup = uno.systemPathToFileUrl(backups)
    document = office.load(path, hidden=False)

    def copies():
        # It is empty at first, beside a lock file of its own; a newer one may take its place at any time.
        name = os.path.basename(path)
        names = [copy for copy in os.listdir(backups) if copy.startswith(name)]
        return [copy for copy in names if size(os.path.join(backups, copy))]

    return office, document, copies


def size(path):
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def crash(profile, path):
    office, document, copies = opened_with_copies_beside(profile, path)
    write(document, "not saved")
    check(document.isModified(), "nothing to recover")
    recovery(office, "/doSessionSave")
    check(copies(), "nothing was saved for recovery")
    killed_when_noted(office, profile, copies)
    recovered(profile)


def typed(document, text):
    """The text is there before the document knows that it was changed."""
    return text in read(document) and document.isModified()


def autosave(profile, path):
    office, document, copies = opened_with_copies_beside(profile, path, AUTOSAVE)
    enter(document, path, "timed")
    # A minute after the program began, and then until nobody has typed for ten seconds.
    end = time.monotonic() + 400
    while not copies():
        check(time.monotonic() < end, "the timer saved nothing")
        time.sleep(0.1)
    check(document.isModified(), "it saved the document itself")
    killed_when_noted(office, profile, copies)
    recovered(profile)


def press(document, path, is_done, *keys):
    """Presses keys in the window of the document until they have come through."""
    search = ["xdotool", "search", "--onlyvisible", "--name", os.path.basename(path)]
    end = time.monotonic() + 240
    while time.monotonic() < end:
        shown = subprocess.run(search, stdout=subprocess.PIPE, text=True).stdout.split()
        if shown:
            subprocess.call(["xdotool", "windowfocus", shown[-1], *keys])
        for _ in range(100):
            if is_done():
                return
            time.sleep(0.1)
    sys.exit(f"{keys} did not come through")


def enter(document, path, word):
    """Types a word into a document by the keyboard."""
    if hasattr(document, "Sheets"):
        keys = ["key", "ctrl+Home", "type", word + "\n"]
    elif hasattr(document, "Text"):
        keys = ["type", word]
    else:
        # The only shape, its text.
        keys = ["key", "Tab", "key", "F2", "type", word]
    press(document, path, lambda: typed(document, word), *keys)


def window(profile, *paths):
    office = Office(profile, "Anna", window=True)
    for path in paths:
        document = office.load(path, hidden=False)
        enter(document, path, "typed")
        press(document, path, lambda: not document.isModified(), "key", "Escape", "key", "ctrl+s")
        document.close(True)
        document = office.load(path, option("ReadOnly", True))
        check("typed" in read(document), f"{path}: {read(document)!r}")
        document.close(True)
    office.end()


def main():
    verb, rest = sys.argv[1], sys.argv[2:]
    verbs = {
        "all": all_kinds, "make": make_each, "hold": hold, "second": second, "told": told,
        "crash": crash, "autosave": autosave, "window": window,
    }
    if verb == "told":
        # Of the same user of the machine LibreOffice says "yourself".
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    with tempfile.TemporaryDirectory() as profile:
        os.environ["HOME"] = profile
        verbs[verb](profile, *rest)


main()
