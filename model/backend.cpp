#include "model/backend.hpp"

namespace muster {

const KernelTable& kernels_of(DeviceKind kind) {
  return kind == DeviceKind::cuda ? cuda_kernels() : cpu_kernels();
}

Backend backend_of(const Device& device) {
  if (device.kind() == DeviceKind::cuda) return {cuda_kernels(), cuda_flat_kernels(), make_cuda_context()};
  return {cpu_kernels(), cpu_flat_kernels(), nullptr};
}

}  // namespace muster
