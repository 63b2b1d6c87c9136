// What stands for GPUs in a build without CUDA.
#include "core/device.hpp"
#include "core/error.hpp"

namespace muster {

int cuda_device_count() { return 0; }

std::unique_ptr<Device> cuda_device(int) {
  throw UserError(
      "this muster was built without CUDA: install the CUDA toolkit (./launch/setup --cuda) and build again, "
      "or "
      "set run.device = \"cpu\"");
}

}  // namespace muster
