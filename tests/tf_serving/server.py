"""A server that speaks TensorFlow Serving's REST API and gRPC, around TensorFlow's C++ loader.

Documented client lines are tested against it where TF Serving itself cannot be installed. It takes
the flags and configuration files of TF Serving and no others, and runs the SavedModel in the
runtime that is TF Serving's, too. Of batching it has the limits (size, padding, threads and queue);
it does not put requests together. It listens while the first version loads, for which it waits
until the file --test_load_after is there; TF Serving begins to listen after that, and behaves so
with later versions.

`keras_resnet_cli.module_command("tf_serving.server", *flags)` starts it without TensorFlow and
Keras in Python; the folder above has to be on the path.
"""

import concurrent.futures
import re
import threading

import grpc

from tf_serving import services
from tf_serving.models import Models
from tf_serving.rest import Rest, RestServer

FLAGS = {
    *("port", "rest_api_port", "rest_api_timeout_in_ms", "model_name", "model_base_path"),
    *("model_config_file", "monitoring_config_file", "enable_batching", "batching_parameters_file"),
    *("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"),
    *("file_system_poll_wait_seconds", "enable_model_warmup", "test_load_after"),
}


def parse(arguments: list[str]) -> dict[str, str]:
    """Flags by name; a wrong one ends the server, as it does TF Serving."""
    flags = {}
    for argument in arguments:
        found = re.fullmatch(r"--?(\w+)=(.*)", argument)
        if not found or found[1] not in FLAGS:
            raise SystemExit(f"unknown argument: {argument}\nusage: tensorflow_model_server")
        flags[found[1]] = found[2]
    return flags


def main(arguments: list[str]) -> None:
    """Listens; prints the ports, gRPC's first."""
    flags = parse(arguments)
    core = Models(flags)
    pool = concurrent.futures.ThreadPoolExecutor(16)
    # TF Serving fails where a port is taken, too.
    options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    speaker = grpc.server(pool, services.handlers(core), options=options)
    port = speaker.add_insecure_port(f"0.0.0.0:{flags.get('port', 8500)}")
    speaker.start()
    rest = RestServer(("0.0.0.0", int(flags.get("rest_api_port", 0))), Rest)
    rest.core = core
    print(port, rest.server_port, flush=True)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    core.watch(float(flags.get("file_system_poll_wait_seconds", 1)))
