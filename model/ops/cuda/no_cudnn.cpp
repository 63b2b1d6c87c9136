// What stands for cuDNN in a build without it.
#include "core/error.hpp"
#include "model/ops/cuda/attention_library.hpp"

namespace muster::cuda {
namespace {

class NoLibrary final : public AttentionLibrary {
 public:
  std::string version() const override { return "no cuDNN"; }
  std::string refusal(const AttentionShape&, const TensorType&, const TensorType&, std::int64_t) override {
    return "built without cuDNN";
  }
  void forward(const AttentionShape&, const KernelArgs&) override { throw Defect("no cuDNN"); }
  void gradient(const AttentionShape&, bool, const KernelArgs&) override { throw Defect("no cuDNN"); }
};

}  // namespace

std::unique_ptr<AttentionLibrary> make_attention_library() { return std::make_unique<NoLibrary>(); }

}  // namespace muster::cuda
