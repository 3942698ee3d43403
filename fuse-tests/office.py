"""Drives LibreOffice over UNO, as an office worker would: make, edit in place, read back.

office.py make DIR           writes report.docx, sheet.ods and letter.odt
office.py edit DIR TEXT      opens each one, checks its lock file, writes TEXT into it, saves in place, closes
office.py read DIR           prints what each one says
"""
import os
import sys
import time
import tempfile
import subprocess

import uno
from com.sun.star.beans import PropertyValue
from com.sun.star.connection import NoConnectException

NAMES = {
    "report.docx": ("swriter", "MS Word 2007 XML"),
    "sheet.ods": ("scalc", "calc8"),
    "letter.odt": ("swriter", "writer8"),
}


def option(name, value):
    return PropertyValue(Name=name, Value=value)


def desktop(pipe):
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
    for _ in range(600):
        try:
            context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
            return context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
        except NoConnectException:
            time.sleep(0.1)
    sys.exit("LibreOffice did not start")


def write(document, text):
    if hasattr(document, "Text"):
        document.Text.setString(text)
    else:
        document.Sheets.getByIndex(0).getCellByPosition(0, 0).setString(text)


def read(document):
    if hasattr(document, "Text"):
        return document.Text.getString()
    return document.Sheets.getByIndex(0).getCellByPosition(0, 0).getString()


def load(desk, path, read_only=False):
    options = (option("Hidden", True), option("ReadOnly", read_only))
    document = desk.loadComponentFromURL(uno.systemPathToFileUrl(path), "_blank", 0, options)
    if document is None:
        sys.exit(f"{path} does not open")
    return document


def make(desk, path, kind, filter_name):
    document = desk.loadComponentFromURL(f"private:factory/{kind}", "_blank", 0, (option("Hidden", True),))
    write(document, "made by office.py")
    document.storeToURL(uno.systemPathToFileUrl(path), (option("FilterName", filter_name),))
    document.close(True)


def edit(desk, path, text):
    lock = os.path.join(os.path.dirname(path), f".~lock.{os.path.basename(path)}#")
    document = load(desk, path)
    if not os.path.exists(lock):
        sys.exit(f"{lock} is not there while the document is open")
    if document.isReadonly():
        sys.exit(f"{path} opened read-only")
    write(document, text)
    document.store()
    if document.isModified():
        sys.exit(f"{path} was not saved")
    document.close(True)
    if os.path.exists(lock):
        sys.exit(f"{lock} stayed behind")


def act(desk, verb, directory, *rest):
    for name, (kind, filter_name) in NAMES.items():
        path = os.path.join(directory, name)
        if verb == "make":
            make(desk, path, kind, filter_name)
        elif verb == "edit":
            edit(desk, path, rest[0])
        else:
            document = load(desk, path, read_only=True)
            print(f"{name}: {read(document)}")
            document.close(True)


def main():
    pipe = f"skrin-{os.getpid()}"
    with tempfile.TemporaryDirectory() as profile:
        office = subprocess.Popen([
            "soffice", "--headless", "--norestore", "--nologo", "--nodefault",
            f"-env:UserInstallation=file://{profile}", f"--accept=pipe,name={pipe};urp;",
        ])
        try:
            desk = desktop(pipe)
            act(desk, *sys.argv[1:])
            desk.terminate()
            office.wait(60)
        finally:
            office.kill()


main()
