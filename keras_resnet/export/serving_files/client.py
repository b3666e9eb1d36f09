"""Asks a running server for the most probable classes of images. Needs Python 3.10 or newer alone;
with --grpc also grpcio (pip install grpcio) and messages.py beside this file, but no TensorFlow.

A row for each image, in order; of one that cannot be read, or that the server refuses, the row says
why, and the exit code is 1 at the end. Images are sent in requests of as many as the server puts
into one batch. A request that is refused is cut in halves, until the image that is at fault stands
alone. Waits for a server that still starts, loads the model, or has too much to do.
"""

import argparse
import base64
import glob
import http.client
import io
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

MODEL = "@NAME@"
BATCH = 16  # of the server: batching.config
MOST_BYTES = 32 * 2**20  # of the files in a request
SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")
NO_REST = "does not speak REST; its gRPC port takes --grpc"


class Refused(Exception):
    """The server does not answer this request; it may answer one of fewer or other images."""


class Unusable(Exception):
    """The server will answer no request."""


class Unknown(Unusable):
    """The server does not know the model, or not at the moment."""


class Busy(Exception):
    """The server cannot answer now."""


def main():
    options = parse(sys.argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    server = Grpc(options) if options.grpc else Rest(options)
    names = find(options.images, options.list)
    failed = 0
    try:
        server.patiently(server.check_state, options.wait)
        for files in batches(names, options.batch):
            for name, answer in classify(server, files, options.wait):
                failed += "error" in answer
                print(as_json(name, answer) if options.json else as_text(name, answer, options.top))
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (Unusable, Refused, Busy) as error:
        sys.exit(f"{options.server}: {shown(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failed else 0)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="file, folder of images, or pattern (*.jpg)")
    add("--list", metavar="FILE", help="file of names, one a line; - for standard input")
    add("--server", metavar="HOST:PORT", help="default: localhost:8501, with --grpc localhost:8500")
    add("--grpc", action="store_true", help="speak gRPC instead of REST")
    add("--model", default=MODEL, metavar="NAME", help=f"default: {MODEL}")
    add("--version", type=int, metavar="N", help="default: the newest that is served")
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="to send as well")
    add("--batch", type=int, default=BATCH, metavar="N", help=f"images a request, {BATCH}")
    add("--wait", type=float, default=60, metavar="SECONDS", help="for a server that is away, 60")
    add("--timeout", type=float, default=60, metavar="SECONDS", help="of a request, 60")
    add("--top", type=int, default=5, metavar="K", help="classes to print, 5")
    add("--json", action="store_true", help="print a JSON object a line")
    options = parser.parse_args(arguments)
    if not options.images and not options.list:
        parser.error("name images, or a --list of them")
    if options.batch < 1:
        parser.error("--batch is at least 1")
    options.server = options.server or f"localhost:{8500 if options.grpc else 8501}"
    if "://" not in options.server:
        options.server = f"http://{options.server}"
    try:
        if urllib.parse.urlsplit(options.server).port == 0:
            raise ValueError
    except ValueError:
        parser.error(f"--server={options.server}: takes HOST:PORT")
    options.headers = [tuple(part.strip() for part in h.split(":", 1)) for h in options.header]
    if any(len(header) != 2 for header in options.headers):
        parser.error("--header takes NAME:VALUE")
    return options


def find(arguments, list_file):
    """The names of files: those named, those in folders, those of patterns and of a list."""
    try:
        names = [*list_named(arguments), *(map(as_here, read_list(list_file)) if list_file else ())]
    except (OSError, UnicodeError) as error:
        sys.exit(f"--list={list_file}: {getattr(error, 'strerror', None) or error}")
    return names or sys.exit("there are no images")


def list_named(arguments):
    for name in arguments:
        if os.path.isdir(name):
            for folder, folders, files in os.walk(name):
                folders.sort()
                for file in sorted(files):
                    if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                        yield os.path.join(folder, file)
        elif not os.path.exists(name) and glob.has_magic(name):
            # A shell of Windows leaves patterns to the programs.
            yield from sorted(glob.glob(name, recursive=True)) or [name]
        else:
            yield name


def read_list(path):
    """The lines of a file: line ends of any system, UTF-16 as PowerShell writes it, or UTF-8."""
    if path == "-":
        content = sys.stdin.buffer.read()
    else:
        with open(path, "rb") as file:
            content = file.read()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16", "surrogateescape")
    else:
        text = content.decode("utf-8-sig", "surrogateescape")
    lines = text.replace("\r\n", "\n").split("\n")
    return [line.rstrip("\r") for line in lines if line.strip()]


def as_here(name):
    r"""A name that was written elsewhere: "C:\with quotes", or with backslashes for slashes."""
    bare = name[1:-1] if name[:1] == name[-1:] == '"' else name
    for one in (name, bare, bare.replace("\\", "/")):
        if os.path.exists(one):
            return one
    return name


def batches(names, most):
    """Yields lists of (name, content or OSError), each of which becomes a request."""
    files: list = []
    size = 0
    for name in names:
        try:
            with open(name, "rb") as file:
                content = file.read()
        except (OSError, ValueError) as error:
            files.append((name, error))
            continue
        read = sum(isinstance(earlier, bytes) for _, earlier in files)
        if read == most or (read and size + len(content) > MOST_BYTES):
            yield files
            files, size = [], 0
        files.append((name, content))
        size += len(content)
    if files:
        yield files


def classify(server, files, wait):
    """(name, answer) of each file; an answer is a dict of outputs, or of an "error"."""
    contents = [content for _, content in files if isinstance(content, bytes)]
    answers = iter(answer_all(server, contents, wait))
    for name, content in files:
        if isinstance(content, bytes):
            answer = next(answers)
            if answer.get("valid") is False:  # of an export with --on-error=flag
                answer = {"error": "the server cannot decode it"}
            yield name, answer
        else:
            yield name, {"error": getattr(content, "strerror", None) or str(content)}


def answer_all(server, contents, wait):
    if not contents:
        return []
    try:
        return server.patiently(lambda: server.predict_when_served(contents), wait)
    except Refused as error:
        if len(contents) == 1:
            return [{"error": str(error)}]
    half = (len(contents) + 1) // 2
    return answer_all(server, contents[:half], wait) + answer_all(server, contents[half:], wait)


class Server:
    """What REST and gRPC have in common."""

    def __init__(self, options):
        self.options = options

    def check_state(self):
        """Returns if the model can answer; raises Busy if it may soon, Unusable if not."""
        raise NotImplementedError

    def predict(self, contents):
        """A dict of outputs for each of some files."""
        raise NotImplementedError

    def patiently(self, ask, seconds):
        """What `ask()` returns, once the server is there and not busy."""
        end, pause, told = time.monotonic() + seconds, 0.1, False
        while True:
            try:
                return ask()
            except Busy as error:
                if time.monotonic() + pause > end:
                    raise Busy(f"{error} (waited {seconds:.0f} s)") from None
                if not told and pause > 0.5:
                    print(f"waiting for {self.options.server}: {shown(error)}", file=sys.stderr)
                    told = True
            time.sleep(pause)
            pause = min(2 * pause, 3)

    def predict_when_served(self, contents):
        try:
            return self.predict(contents)
        except Unknown as error:  # between two versions, or after the server was started anew
            self.check_state()
            raise Busy(error) from None

    def too_late(self):
        return f"gives no answer within {self.options.timeout:.0f} s (--timeout)"

    def check_versions(self, versions):
        """Of [(version, state, message)]: returns where one can answer, waits where one may."""
        states = {state for _, state, _ in versions}
        if "AVAILABLE" in states:
            return
        if states & {"START", "LOADING", "UNKNOWN"}:
            raise Busy(f"the model {self.options.model} is loading")
        reasons = "; ".join(f"version {n}: {why}" for n, _, why in versions if why)
        raise Unusable(f"the model {self.options.model} is not served ({reasons or 'ended'})")


class Rest(Server):
    """https://www.tensorflow.org/tfx/serving/api_rest"""

    def __init__(self, options):
        super().__init__(options)
        model = urllib.parse.quote(options.model, safe="")
        version = "" if options.version is None else f"/versions/{options.version}"
        self.address = f"{options.server.rstrip('/')}/v1/models/{model}{version}"

    def check_state(self):
        found = self.ask(self.address).get("model_version_status", [])
        self.check_versions(
            [
                (one.get("version"), one.get("state"), one.get("status", {}).get("error_message"))
                for one in found
            ]
        )

    def predict(self, contents):
        instances = [
            {"image_bytes": {"b64": base64.b64encode(content).decode()}} for content in contents
        ]
        body = {"signature_name": "serving_default", "instances": instances}
        answers = self.ask(f"{self.address}:predict", json.dumps(body).encode()).get("predictions")
        if not isinstance(answers, list) or len(answers) != len(contents):
            raise Refused(f"{len(contents)} images were sent, and the answer is not one for each")
        return answers

    def ask(self, address, body=None):
        headers = {"Content-Type": "application/json", **dict(self.options.headers)}
        request = urllib.request.Request(address, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.options.timeout) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            content = error.read()
            try:
                message = json.loads(as_str(content))["error"]
            except (ValueError, KeyError, TypeError):
                message = as_str(content).strip()[:200] or error.reason
            if error.code in (429, 502, 503):
                raise Busy(f"{error.code} {message}") from None
            if error.code in (400, 413, 504):
                raise Refused(reason_of(message)) from None
            kind = Unknown if error.code == 404 else Unusable
            raise kind(f"{error.code} {message}") from None
        except OSError as error:  # no connection, one that ended, or one on which nothing comes
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise Unusable(self.too_late()) from None
            raise Busy(reason) from None
        except (http.client.HTTPException, ValueError):
            raise Unusable(NO_REST) from None
        try:
            return json.loads(as_str(content))
        except ValueError:
            raise Unusable(NO_REST) from None


class Grpc(Server):
    """tensorflow.serving.PredictionService and ModelService."""

    def __init__(self, options):
        super().__init__(options)
        try:
            import grpc
        except ImportError:
            sys.exit("--grpc needs grpcio: pip install grpcio")
        sys.dont_write_bytecode = True  # the folder is the server's
        import messages

        self.grpc, self.messages = grpc, messages
        target = urllib.parse.urlsplit(options.server)
        settings = [("grpc.max_receive_message_length", -1)]
        hosts = [value for name, value in options.headers if name.lower() == "host"]
        settings += [("grpc.default_authority", host) for host in hosts]
        if target.scheme == "https":
            credentials = grpc.ssl_channel_credentials()
            self.channel = grpc.secure_channel(target.netloc, credentials, settings)
        else:
            self.channel = grpc.insecure_channel(target.netloc, settings)

    def check_state(self):
        request = self.messages.status_request(self.options.model, self.options.version)
        answer = self.ask("ModelService/GetModelStatus", request)
        self.check_versions(self.messages.versions_of(answer))

    def predict(self, contents):
        request = self.messages.predict_request(self.options.model, self.options.version, contents)
        answer = self.ask("PredictionService/Predict", request)
        outputs = self.messages.outputs_of(answer, len(contents))
        return [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]

    def ask(self, method, request):
        call = self.channel.unary_unary(f"/tensorflow.serving.{method}")
        rest = [(k.lower(), v) for k, v in self.options.headers if k.lower() != "host"]
        try:
            return call(request, timeout=self.options.timeout, metadata=rest)
        except self.grpc.RpcError as error:
            code, details = error.code(), error.details()
        codes = self.grpc.StatusCode
        if code is codes.INVALID_ARGUMENT or "larger than max" in details:
            raise Refused(reason_of(details))
        if code in (codes.UNAVAILABLE, codes.RESOURCE_EXHAUSTED):
            raise Busy(details)
        if code is codes.DEADLINE_EXCEEDED:
            raise Unusable(self.too_late())
        kind = Unknown if code is codes.NOT_FOUND else Unusable
        raise kind(f"{code.name} {details}")


def reason_of(message):
    """What an export says of images that it cannot decode, without what TensorFlow puts around."""
    found = re.match(r"assertion failed: \[(.*?)( Positions in the batch:)?\]", message)
    return found[1] if found else message


def as_str(content):
    return bytes(content).decode("utf-8", "surrogateescape")


def shown(text):
    """One line, in which what would control a terminal is escaped."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in str(text)
    )


def as_text(name, answer, top):
    if "error" in answer:
        return f"{shown(name)}: error: {shown(answer['error'])}"
    pairs = list(zip(answer["classes"], answer["probabilities"], strict=True))[:top]
    row = ", ".join(f"{shown(one)} {probability:.1%}" for one, probability in pairs)
    return f"{shown(name)}: {'unknown, perhaps ' if answer.get('unknown') else ''}{row}"


def as_json(name, answer):
    if "error" in answer:
        return json.dumps({"image": name, "error": answer["error"]})
    said = {"answer": answer["answers"]} if "answers" in answer else {}
    rows = [
        {"class": one, "class_id": class_id, "probability": probability}
        for one, class_id, probability in zip(
            answer["classes"], answer["class_ids"], answer["probabilities"], strict=True
        )
    ]
    return json.dumps({"image": name, **said, "predictions": rows})


if __name__ == "__main__":
    main()
