"""The report of tests/gpu/run: report.md to read, report.json to compute with."""

import json


def table(title, header, rows):
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markdown(told):
    machine, manifest = told["machine"], told["manifest"]
    lines = ["# Muster on a GPU", ""]
    if told["dry_run"]:
        lines += ["A dry run: CUDA's libraries are the stand-in, shapes are small, and nothing below says anything of a GPU.", ""]
    lines += [f"{machine['name']}, driver {machine['driver_version']}; commit {manifest['commit'][:12]}"
              f"{' with changes' if manifest['changed_since'] else ''}, built for sm_{manifest['architectures'].replace(';', ', sm_')}; "
              f"{told['date']}; all of it took {told['seconds']:.0f} s.", "", f"    {told['command']}", ""]
    lines += ["| part | outcome | seconds |", "|---|---|---|"]
    lines += [f"| {part['name']} | {part['status']} | {part['seconds']:.0f} |" for part in told["parts"]]
    for part in told["parts"]:
        lines += ["", f"## {part['name']}: {part['status']}", "", part["about"], ""]
        lines += [f"- {note}" if "\n" not in note else note for note in part["notes"]]
        for title, header, rows in part["tables"]:
            if rows:
                lines += ["", table(title, header, rows)]
    if told["libraries"]:
        lines += ["", "## Libraries", ""]
        lines += [f"- {name}: {file or 'not found'}" for name, file in told["libraries"].items()]
    return "\n".join(lines) + "\n"


def write(folder, told):
    (folder / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(told))
