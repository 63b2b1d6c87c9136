#include "model/ops/onednn_product.hpp"

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/error.hpp"

namespace muster::cpu {
namespace {

// oneDNN asks OpenMP how many threads the calling thread may use, when a primitive is created and when it
// runs.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThreaded() { omp_set_num_threads(before_); }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

}  // namespace

struct OneDnnProduct::Primitive {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul product;
};

// oneDNN keeps primitives it has made in a cache of its own.
OneDnnProduct::OneDnnProduct(DType type, const MatmulShape& tile, const MatrixView& a, const MatrixView& b,
                             std::int64_t c_stride, bool add) {
  using Memory = dnnl::memory;
  const SingleThreaded guard;
  const auto element = type == DType::bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  try {
    const dnnl::matmul::desc description(
        Memory::desc({tile.m, tile.k}, element, Memory::dims{a.row_stride, a.column_stride}),
        Memory::desc({tile.k, tile.n}, element, Memory::dims{b.row_stride, b.column_stride}),
        Memory::desc({tile.m, tile.n}, Memory::data_type::f32, Memory::dims{c_stride, 1}));
    const dnnl::matmul::primitive_desc made(description, attributes, engine());
    primitive_ = std::make_unique<Primitive>(Primitive{made, dnnl::matmul(made)});
  } catch (const dnnl::error& error) {
    throw Defect(fmt::format("oneDNN cannot multiply a tile of {} x {} x {}: {}", tile.m, tile.n, tile.k,
                             error.what()));
  }
}

OneDnnProduct::~OneDnnProduct() = default;
OneDnnProduct::OneDnnProduct(OneDnnProduct&&) noexcept = default;

std::uint64_t OneDnnProduct::scratchpad_bytes() const {
  return primitive_->description.scratchpad_desc().get_size();
}

void OneDnnProduct::run(const void* a, const void* b, float* c, std::byte* scratchpad) const {
  const SingleThreaded guard;
  const auto memory = [](const dnnl::memory::desc& description, const void* data) {
    return dnnl::memory(description, engine(), const_cast<void*>(data));
  };
  const auto& description = primitive_->description;
  dnnl::stream stream(engine());
  primitive_->product.execute(stream,
                              {{DNNL_ARG_SRC, memory(description.src_desc(), a)},
                               {DNNL_ARG_WEIGHTS, memory(description.weights_desc(), b)},
                               {DNNL_ARG_DST, memory(description.dst_desc(), c)},
                               {DNNL_ARG_SCRATCHPAD, memory(description.scratchpad_desc(), scratchpad)}});
  stream.wait();
}

}  // namespace muster::cpu
