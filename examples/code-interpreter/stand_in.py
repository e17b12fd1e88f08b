"""Write stand-in.json: what the local API answers where there is no key, and so no model.

The programs are run here, over titanic.csv; what they print and write is what the stand-in says that they did.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

RATES = """import csv
rows = list(csv.DictReader(open("/mnt/data/titanic.csv", encoding="utf-8")))
rates = {}
for sex in ("female", "male"):
    of_sex = [row for row in rows if row["sex"] == sex]
    rates[sex] = sum(int(row["survived"]) for row in of_sex) / len(of_sex)
    print(f"{sex}: {rates[sex]:.1%} of {len(of_sex)}")
"""
CHART = (
    RATES
    + """
import struct, zlib
width, height = 320, 240
pixels = [bytearray(b"\\xff" * 3 * width) for _ in range(height)]
for place, (sex, colour) in enumerate((("female", (200, 80, 80)), ("male", (80, 80, 200)))):
    for y in range(height - 1 - round(rates[sex] * (height - 20)), height):
        for x in range(50 + 130 * place, 140 + 130 * place):
            pixels[y][3 * x : 3 * x + 3] = bytes(colour)

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

with open("/mnt/data/survival by sex.png", "wb") as file:
    file.write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
    file.write(chunk(b"IDAT", zlib.compress(b"".join(b"\\0" + bytes(row) for row in pixels))) + chunk(b"IEND", b""))
"""
)
TABLE = (
    RATES
    + """
with open("/mnt/data/survival by sex.csv", "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["sex", "survival_rate"])
    table.writerows((sex, round(rate, 4)) for sex, rate in rates.items())
"""
)
AGES = """import csv
groups = {"0-12": (0, 13), "13-17": (13, 18), "18-39": (18, 40), "40-59": (40, 60), "60+": (60, 200)}
rows = list(csv.DictReader(open("/mnt/data/titanic.csv", encoding="utf-8")))
with open("/mnt/data/age groups.csv", "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["age_group", "passengers", "survivors"])
    for name, (first, end) in groups.items():
        group = [row for row in rows if first <= int(row["age"]) < end]
        table.writerow([name, len(group), sum(int(row["survived"]) for row in group)])
        print(name, len(group))
"""


def ran(program: str) -> dict:
    """A program, what it printed, and the files it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "titanic.csv").write_bytes((HERE / "titanic.csv").read_bytes())
        here = program.replace("/mnt/data/", f"{folder}{os.sep}")
        done = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, check=True)
        made = [path for path in sorted(place.iterdir()) if path.name != "titanic.csv"]
        parts = [{"name": path.name, "base64": base64.b64encode(path.read_bytes()).decode()} for path in made]
    code = {"input": program, "logs": done.stdout}
    code["images"] = [part for part in parts if part["name"].endswith(".png")]
    code["files"] = [part for part in parts if not part["name"].endswith(".png")]
    return code


rates = ran(RATES)
script = {
    "default": {"answer": "This stand-in knows the questions of questions.csv only.", "duration": 0.2},
    "rule": [
        {
            "contains": "bar chart",
            "code": [ran(CHART)],
            "answer": "Here is the bar chart of the survival rate by sex.",
            "duration": 0.2,
        },
        {
            "contains": "survival rate by sex as a CSV",
            "code": [ran(TABLE)],
            "answer": "The table: sandbox:/mnt/data/survival by sex.csv",
            "duration": 0.2,
        },
        {
            "contains": "age group",
            "code": [ran(AGES)],
            "answer": "Survivors by age group: sandbox:/mnt/data/age groups.csv",
            "duration": 0.2,
        },
        {
            "contains": "survival rate by sex",
            "code": [rates],
            "answer": "The survival rate by sex:\n" + rates["logs"].strip(),
            "duration": 0.2,
        },
    ],
}
(HERE / "stand-in.json").write_text(json.dumps(script, indent=1), "utf-8")
