// The kernels of a device, and what they keep from call to call.
#pragma once

#include <memory>

#include "core/device.hpp"
#include "model/ops/kernel.hpp"
#include "model/update/flat_kernels.hpp"

namespace muster {

struct Backend {
  const KernelTable& kernels;
  const FlatKernels& flat;
  std::shared_ptr<KernelContext> context;  // null on CPUs
};

Backend backend_of(const Device& device);

// For plans of devices that may be elsewhere.
const KernelTable& kernels_of(DeviceKind kind);

// Handles and chosen algorithms of the current GPU (model/ops/cuda/context.hpp). Built without CUDA it throws
// Defect: there is no GPU to ask for it.
std::shared_ptr<KernelContext> make_cuda_context();

}  // namespace muster
