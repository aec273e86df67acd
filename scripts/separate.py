"""python scripts/separate.py SONG… [--engine ENGINE] [--model FILE] [--device DEVICE]
                                    [--format FORMAT] [--bitrate KBPS] [--bit-depth BITS]
                                    [--stem STEM] [--output DIR] [--again] [--report] [--json]

Separate songs into vocals and instrumental here, without Kafka: DIR/<song>/vocals.<format> and
DIR/<song>/instrumental.<format>. A SONG may be a folder: its songs, those in its folders too, go
into the same folders below DIR. A song that is done already is skipped, unless --again is given:
DIR/<song>/separation.json says that it had the same content (SHA-256) and was separated with the
same engine, model, format, bit rate, depth and stems, and the stems still have their sizes.

The settings (.env too), the separation process and the receipts are those of the services. --report
adds DIR/<song>/report.html, a page to look at and listen to. A song that fails does not stop the
next. Exit codes: 0 all separated, 1 a song failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import FORMATS, add_choices

#: UVR_ENGINE's and UVR_DEVICE's values; the modules that have them, too, need the requirements.
ENGINES = ("auto", "spleeter", "mdx", "audio-separator", "dsp")
DEVICES = ("auto", "cpu", "cuda", "openvino")


def main() -> int:
    """Separate the songs on the command line; return the exit code."""
    options = _parser().parse_args()
    venv.prefer()
    import config
    from common.errors import InvalidTask, SettingsInvalid
    from common.messages import STEMS, Task
    from tools.separate import songs

    try:
        settings = config.load()
        options.engine = options.engine or settings.uvr_engine
        options.model = settings.uvr_model if options.model is None else options.model
        options.device = options.device or settings.uvr_device
        options.format = options.format or settings.output_format
        options.stems = (options.stem,) if options.stem else STEMS
        Task.check_choices(options.format, options.bitrate, options.bit_depth)
        return songs.run(options, settings)
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except InvalidTask as error:
        print(error.message, file=sys.stderr)
        return SettingsInvalid.exit_code


def _song(text: str) -> Path:
    if not text:  # as a path, it would be the current folder
        raise argparse.ArgumentTypeError("it is empty; name a file or a folder")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="separate.py",
    )
    parser.add_argument(
        "songs", nargs="+", type=_song, metavar="SONG", help="audio files, and folders"
    )
    parser.add_argument("--engine", choices=ENGINES, help="default: UVR_ENGINE")
    parser.add_argument("--model", help="a file in UVR_MODEL_DIR (default: UVR_MODEL)")
    parser.add_argument("--device", choices=DEVICES, help="default: UVR_DEVICE")
    parser.add_argument("--format", choices=FORMATS, help="default: OUTPUT_FORMAT")
    add_choices(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("stems"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument(
        "--again", action="store_true", help="separate songs that are done already, too"
    )
    parser.add_argument(
        "--report", action="store_true", help="write a page for each song: DIR/<song>/report.html"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line per song, shaped as the result message"
    )
    return parser


if __name__ == "__main__":
    script.run(main)
