#!/usr/bin/env python3
"""Writes what cuDNN knows of this GPU as JSON: cudnn_device.py LIBCUDNN OUT

With it, cuDNN plans its graphs for this GPU on a machine that has none (CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, since 9.8).
"""

import ctypes
import pathlib
import sys

# Of cudnn_graph.h.
DEVICEPROP_DESCRIPTOR = 38
DEVICE_ID, JSON_REPRESENTATION = 2700, 2702
TYPE_INT32, TYPE_CHAR = 23, 24


def device_properties(path):
    cudnn = ctypes.CDLL(path)

    def call(name, *arguments):
        if status := getattr(cudnn, name)(*arguments):
            raise SystemExit(f"{name} failed with status {status}")

    descriptor, device, size = ctypes.c_void_p(), ctypes.c_int32(0), ctypes.c_int64()
    call("cudnnBackendCreateDescriptor", DEVICEPROP_DESCRIPTOR, ctypes.byref(descriptor))
    call("cudnnBackendSetAttribute", descriptor, DEVICE_ID, TYPE_INT32, ctypes.c_int64(1), ctypes.byref(device))
    call("cudnnBackendFinalize", descriptor)
    call("cudnnBackendGetAttribute", descriptor, JSON_REPRESENTATION, TYPE_CHAR, ctypes.c_int64(0), ctypes.byref(size), None)
    text = ctypes.create_string_buffer(size.value)
    call("cudnnBackendGetAttribute", descriptor, JSON_REPRESENTATION, TYPE_CHAR, size, ctypes.byref(size), text)
    return text.value


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_bytes(device_properties(sys.argv[1]) + b"\n")
