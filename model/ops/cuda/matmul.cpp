// Row-major matrices as cuBLASLt, which counts by columns, sees them: a stored row-major matrix is its own transpose
// there, so that c^T = b^T a^T is asked for, with b in the first place.
#include "model/ops/cuda/matmul.hpp"

#include <compare>
#include <cublasLt.h>
#include <fmt/format.h>
#include <map>
#include <type_traits>

#include "core/error.hpp"
#include "model/ops/cuda/matmul_plain.hpp"

namespace muster::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* what, SourceLine where = SourceLine::current()) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Defect(fmt::format("{}: {}", what, cublasLtGetStatusString(status)), where);
}

struct Destroy {
  void operator()(cublasLtHandle_t handle) const { cublasLtDestroy(handle); }
  void operator()(cublasLtMatmulDesc_t description) const { cublasLtMatmulDescDestroy(description); }
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
  void operator()(cublasLtMatmulPreference_t preference) const {
    cublasLtMatmulPreferenceDestroy(preference);
  }
};
template <class Pointer>
using Owned = std::unique_ptr<std::remove_pointer_t<Pointer>, Destroy>;
using Handle = Owned<cublasLtHandle_t>;
using Description = Owned<cublasLtMatmulDesc_t>;
using Layout = Owned<cublasLtMatrixLayout_t>;
using Preference = Owned<cublasLtMatmulPreference_t>;

Handle make_handle() {
  cublasLtHandle_t handle = nullptr;
  check_cublas(cublasLtCreate(&handle), "opening cuBLASLt");
  return Handle(handle);
}

template <class T>
void set(const Description& description, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_cublas(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof value),
               "describing a product");
}
template <class T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check_cublas(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
               "saying what a product may use");
}

cudaDataType_t type_of(DType type) {
  check(type == DType::f32 || type == DType::bf16, "products are of f32 and bf16");
  return type == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// What all pointers of the plan's tensors are multiples of, up to cuBLASLt's own default.
std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(address & -address, 256));
}

// All that an algorithm may depend on. Not whether c is added to: cuBLASLt does not ask for it when it chooses, so
// that the first micro-batch and the others have the same order of sums.
struct Problem {
  DType inputs, output;
  std::int64_t m, n, k;
  bool a_transposed, b_transposed, biased;
  std::int64_t a_stride, b_stride, c_stride;
  std::uint32_t a_alignment, b_alignment, c_alignment, bias_alignment;

  explicit Problem(const Product& p)
      : inputs(p.inputs),
        output(p.output),
        m(p.m),
        n(p.n),
        k(p.k),
        a_transposed(p.a.transposed),
        b_transposed(p.b.transposed),
        biased(p.bias != nullptr),
        a_stride(p.a.stride),
        b_stride(p.b.stride),
        c_stride(p.c_stride),
        a_alignment(alignment_of(p.a.data)),
        b_alignment(alignment_of(p.b.data)),
        c_alignment(alignment_of(p.c)),
        bias_alignment(p.bias ? alignment_of(p.bias) : 256) {}
  auto operator<=>(const Problem&) const = default;
};

// A row-major matrix that is used as rows x columns.
Layout make_layout(DType type, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                   bool transposed) {
  if (transposed) std::swap(rows, columns);
  cublasLtMatrixLayout_t layout = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&layout, type_of(type), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), stride),
               "describing a matrix");
  return Layout(layout);
}

Description make_description(const Product& product) {
  cublasLtMatmulDesc_t raw = nullptr;
  check_cublas(cublasLtMatmulDescCreate(&raw, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  Description description(raw);
  set(description, CUBLASLT_MATMUL_DESC_TRANSA, product.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(description, CUBLASLT_MATMUL_DESC_TRANSB, product.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (product.bias) {
    set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  }
  return description;
}

Preference make_preference(const Problem& problem) {
  cublasLtMatmulPreference_t raw = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&raw), "saying what a product may use");
  Preference preference(raw);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, matmul_workspace(problem.m, problem.n));
  // A divided k is summed in f32 in a step of its own, in one order: neither in the output as parts arrive, nor in
  // bf16.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem.b_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.a_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.c_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.c_alignment);
  return preference;
}

}  // namespace

struct Matmuls::State {
  struct Chosen {
    Description description;
    Layout a, b, c;
    cublasLtMatmulAlgo_t algorithm{};
    bool found = false;  // else a plain product
  };

  const Chosen& chosen_for(const Product& product);
  Chosen choose(const Product& product, const Problem& problem) const;

  Handle handle = make_handle();
  std::map<Problem, Chosen> problems;
};

const Matmuls::State::Chosen& Matmuls::State::chosen_for(const Product& product) {
  const Problem problem(product);
  const auto found = problems.find(problem);
  if (found != problems.end()) return found->second;
  return problems.emplace(problem, choose(product, problem)).first->second;
}

// The first that the heuristic names. Timing candidates would find a faster one now and then, but the choice, and
// with it the bits, would differ from rank to rank and from run to run.
Matmuls::State::Chosen Matmuls::State::choose(const Product& product, const Problem& problem) const {
  Chosen chosen{
      .description = make_description(product),
      .a = make_layout(product.inputs, product.m, product.k, product.a.stride, product.a.transposed),
      .b = make_layout(product.inputs, product.k, product.n, product.b.stride, product.b.transposed),
      .c = make_layout(product.output, product.m, product.n, product.c_stride, false)};
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle.get(), chosen.description.get(), chosen.b.get(), chosen.a.get(), chosen.c.get(), chosen.c.get(),
      make_preference(problem).get(), 1, &result, &count);
  // (An invalid value is documented for mistakes in the call alone, not for shapes that no algorithm serves.)
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_cublas(status, "choosing an algorithm for a product");
  chosen.found = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  if (chosen.found)
    chosen.algorithm = result.algo;
  else
    fmt::print(
        stderr,
        "cuBLASLt has no algorithm for the {} product {} x {} x {}: a slow kernel computes it; even widths "
        "are fast\n",
        name_of(product.inputs), product.m, product.n, product.k);
  return chosen;
}

Matmuls::Matmuls() : state_(std::make_unique<State>()) {}
Matmuls::~Matmuls() = default;

std::size_t Matmuls::problems() const { return state_->problems.size(); }

void Matmuls::run(const Product& product, std::byte* workspace, NativeStream stream) {
  check(!(product.bias && product.accumulate), "a product with a bias does not accumulate");
  const State::Chosen& chosen = state_->chosen_for(product);
  if (!chosen.found) return plain_product(product, stream);
  if (product.bias) set(chosen.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias);
  const float one = 1.0f, beta = product.accumulate ? 1.0f : 0.0f;
  check_cublas(cublasLtMatmul(state_->handle.get(), chosen.description.get(), &one, product.b.data,
                              chosen.b.get(), product.a.data, chosen.a.get(), &beta, product.c,
                              chosen.c.get(), product.c, chosen.c.get(), &chosen.algorithm, workspace,
                              matmul_workspace(product.m, product.n), static_cast<cudaStream_t>(stream)),
               "multiplying matrices");
}

}  // namespace muster::cuda
