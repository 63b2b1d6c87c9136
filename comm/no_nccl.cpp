// What stands for NCCL in a build without CUDA.
#include "comm/nccl.hpp"
#include "core/error.hpp"

namespace muster {

std::unique_ptr<Communicator> nccl_communicator(Communicator&, const Device&, double) {
  throw Defect("NCCL in a build without CUDA");
}

}  // namespace muster
