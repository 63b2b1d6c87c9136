// A libcuda.so.1 for a machine without a GPU, on which cuDNN builds plans all the same: whatever asks for a device or a
// context hears that there is none, and whatever loads a kernel succeeds with a handle that nobody uses.
namespace {

constexpr int success = 0, no_device = 100;

int some_handle(void** handle) {
  static char something;
  if (handle) *handle = &something;
  return success;
}

int zero(int* value) {
  *value = 0;
  return success;
}

int some_text(int, const char** text) {
  *text = "no GPU is here";
  return success;
}

}  // namespace

#define MUSTER_NO_DEVICE(name) \
  extern "C" int name() { return no_device; }
#define MUSTER_SUCCEEDS(name) \
  extern "C" int name() { return success; }
#define MUSTER_GIVES_HANDLE(name) \
  extern "C" int name(void** handle) { return some_handle(handle); }

MUSTER_NO_DEVICE(cuInit)
MUSTER_NO_DEVICE(cuDriverGetVersion)
MUSTER_NO_DEVICE(cuCtxGetCurrent)
MUSTER_NO_DEVICE(cuCtxGetDevice)
MUSTER_NO_DEVICE(cuCtxGetLimit)
MUSTER_NO_DEVICE(cuCtxPopCurrent)
MUSTER_NO_DEVICE(cuCtxPushCurrent)
MUSTER_NO_DEVICE(cuDeviceGet)
MUSTER_NO_DEVICE(cuDeviceGetAttribute)
MUSTER_NO_DEVICE(cuDeviceGetCount)
MUSTER_NO_DEVICE(cuDevicePrimaryCtxRelease)
MUSTER_NO_DEVICE(cuDevicePrimaryCtxReset)
MUSTER_NO_DEVICE(cuDevicePrimaryCtxRetain)
MUSTER_NO_DEVICE(cuLaunchCooperativeKernel)
MUSTER_NO_DEVICE(cuLaunchKernel)
MUSTER_NO_DEVICE(cuLaunchKernelEx)
MUSTER_NO_DEVICE(cuLinkAddData)
MUSTER_NO_DEVICE(cuLinkAddData_v2)
MUSTER_NO_DEVICE(cuLinkAddFile_v2)
MUSTER_NO_DEVICE(cuLinkComplete)
MUSTER_NO_DEVICE(cuLinkCreate)
MUSTER_NO_DEVICE(cuLinkCreate_v2)
MUSTER_NO_DEVICE(cuLinkDestroy)
MUSTER_NO_DEVICE(cuMemcpyDtoH_v2)
MUSTER_NO_DEVICE(cuModuleGetGlobal_v2)
MUSTER_NO_DEVICE(cuModuleLoadFatBinary)
MUSTER_NO_DEVICE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
MUSTER_NO_DEVICE(cuOccupancyMaxPotentialClusterSize)
MUSTER_NO_DEVICE(cuStreamGetCtx)
MUSTER_NO_DEVICE(cuStreamGetGreenCtx)
MUSTER_NO_DEVICE(cuStreamSynchronize)
MUSTER_NO_DEVICE(cuTensorMapEncodeTiled)

MUSTER_SUCCEEDS(cuFuncSetAttribute)
MUSTER_SUCCEEDS(cuKernelSetAttribute)
MUSTER_SUCCEEDS(cuLibraryLoadFromFile)
MUSTER_SUCCEEDS(cuLibraryUnload)
MUSTER_SUCCEEDS(cuModuleUnload)

MUSTER_GIVES_HANDLE(cuKernelGetFunction)
MUSTER_GIVES_HANDLE(cuLibraryGetKernel)
MUSTER_GIVES_HANDLE(cuLibraryLoadData)
MUSTER_GIVES_HANDLE(cuModuleGetFunction)
MUSTER_GIVES_HANDLE(cuModuleLoadData)
MUSTER_GIVES_HANDLE(cuModuleLoadDataEx)

extern "C" int cuFuncGetAttribute(int* value) { return zero(value); }
extern "C" int cuKernelGetAttribute(int* value) { return zero(value); }
extern "C" int cuGetErrorName(int error, const char** text) { return some_text(error, text); }
extern "C" int cuGetErrorString(int error, const char** text) { return some_text(error, text); }
