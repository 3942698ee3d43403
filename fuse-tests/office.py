"""Drives LibreOffice over UNO, as an office worker would: make, edit in place, read back.

office.py make DIR           writes report.docx, sheet.ods and letter.odt, and contract.docx as another program would
office.py edit DIR TEXT      opens each one, checks its lock file, writes TEXT into it, saves in place, closes
office.py read DIR           prints what each one says
"""
import os
import sys
import time
import tempfile
import subprocess
import zipfile

import uno
from com.sun.star.beans import PropertyValue
from com.sun.star.connection import NoConnectException

NAMES = {
    "report.docx": ("swriter", "MS Word 2007 XML"),
    "sheet.ods": ("scalc", "calc8"),
    "letter.odt": ("swriter", "writer8"),
    "contract.docx": (None, None),
}

# What Word writes, and no more of it than a reader needs: content types, relations, styles with Word's ids, two
# paragraphs (a heading, and one in several runs) and the page.
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml"
FOREIGN = {
    "[Content_Types].xml": f'''{XML}<Types xmlns="{PACKAGE}/content-types">\
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>\
<Default Extension="xml" ContentType="application/xml"/>\
<Override PartName="/word/document.xml" ContentType="{MAIN}.document.main+xml"/>\
<Override PartName="/word/styles.xml" ContentType="{MAIN}.styles+xml"/></Types>''',
    "_rels/.rels": f'''{XML}<Relationships xmlns="{PACKAGE}/relationships">\
<Relationship Id="rId1" Type="{OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>''',
    "word/_rels/document.xml.rels": f'''{XML}<Relationships xmlns="{PACKAGE}/relationships">\
<Relationship Id="rId1" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>''',
    "word/styles.xml": f'''{XML}<w:styles {W}><w:docDefaults><w:rPrDefault><w:rPr>\
<w:rFonts w:ascii="Calibri" w:hAnsi="Calibri"/><w:sz w:val="22"/><w:lang w:val="en-US"/></w:rPr></w:rPrDefault>\
<w:pPrDefault><w:pPr><w:spacing w:after="160" w:line="259" w:lineRule="auto"/></w:pPr></w:pPrDefault></w:docDefaults>\
<w:style w:type="paragraph" w:default="1" w:styleId="Normal"><w:name w:val="Normal"/><w:qFormat/></w:style>\
<w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/><w:basedOn w:val="Normal"/>\
<w:next w:val="Normal"/><w:uiPriority w:val="9"/><w:qFormat/><w:pPr><w:keepNext/><w:spacing w:before="240" w:after="0"/>\
<w:outlineLvl w:val="0"/></w:pPr><w:rPr><w:color w:val="2F5496"/><w:sz w:val="32"/></w:rPr></w:style></w:styles>''',
    "word/document.xml": f'''{XML}<w:document {W}><w:body>\
<w:p w:rsidR="00A77B3E"><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Contract of sale</w:t></w:r></w:p>\
<w:p w:rsidR="00A77B3E"><w:r><w:t xml:space="preserve">The seller keeps </w:t></w:r><w:proofErr w:type="spellStart"/>\
<w:r w:rsidRPr="00C4129B"><w:rPr><w:b/></w:rPr><w:t>nothing</w:t></w:r><w:proofErr w:type="spellEnd"/>\
<w:r><w:t>.</w:t></w:r></w:p><w:sectPr><w:pgSz w:w="11906" w:h="16838"/>\
<w:pgMar w:top="1417" w:right="1417" w:bottom="1134" w:left="1417" w:header="708" w:footer="708" w:gutter="0"/>\
</w:sectPr></w:body></w:document>''',
}


def option(name, value):
    return PropertyValue(Name=name, Value=value)


def desktop(pipe):
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
    # A slow machine takes minutes to make a profile.
    for _ in range(3000):
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


def make_foreign(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, part in FOREIGN.items():
            package.writestr(name, part)


def add(document, text):
    """Adds a paragraph, so that what was there shows whether it came through."""
    body = document.Text
    styles = [paragraph.ParaStyleName for paragraph in body]
    if styles[0] != "Heading 1":
        sys.exit(f"the heading is in the style {styles[0]}")
    body.insertString(body.End, "\n" + text, False)


def edit(desk, path, text):
    lock = os.path.join(os.path.dirname(path), f".~lock.{os.path.basename(path)}#")
    document = load(desk, path)
    if not os.path.exists(lock):
        sys.exit(f"{lock} is not there while the document is open")
    if document.isReadonly():
        sys.exit(f"{path} opened read-only")
    if os.path.basename(path) == "contract.docx":
        add(document, text)
    else:
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
        if verb == "make" and kind is None:
            make_foreign(path)
        elif verb == "make":
            make(desk, path, kind, filter_name)
        elif verb == "edit":
            edit(desk, path, rest[0])
        else:
            document = load(desk, path, read_only=True)
            print(f"{name}: {read(document)!r}")
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
            office.wait(300)
        finally:
            office.kill()


if __name__ == "__main__":
    main()
