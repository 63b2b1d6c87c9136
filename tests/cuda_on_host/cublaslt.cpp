// cuBLASLt on the host: the functions that model/ops/cuda/matmul.cpp calls. Products are loops with f32 sums, put on
// the stand-in's streams; the heuristic knows one algorithm.
//
// It refuses what the library refuses or documents as undefined: types, leading dimensions, alignments below those
// that the heuristic was told of, a bias in another type than the output's, too little workspace, memory that is not
// the device's, an output that overlaps an input. It also refuses ways to divide a sum whose bits differ from run to
// run. For bf16 whose rows do not begin at multiples of four bytes it has no algorithm, so that the caller's way
// without one is run. It fills the workspace it is given with NaN, so that a kernel of another stream that shares it
// is seen.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <new>
#include <vector>

#include "tests/cuda_on_host/host_cuda.hpp"

namespace {

struct Layout {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t leading;
};

struct Description {
  cublasComputeType_t compute;
  cudaDataType scale;
  cublasOperation_t a, b;
  cublasLtEpilogue_t epilogue;
  const void* bias;
};

struct Preference {
  std::uint64_t workspace;
  std::uint32_t schemes;     // of dividing k
  std::uint32_t a, b, c, d;  // alignments
};

// What the heuristic decided, inside of cublasLtMatmulAlgo_t.
struct Algorithm {
  std::uint64_t workspace;
  std::uint32_t a, b, c, d;  // alignments that it counts on
};

// The library's descriptors are opaque words of the caller's; these views live in them.
template <class T, class Opaque>
T& view(Opaque* opaque) {
  static_assert(sizeof(T) <= sizeof(Opaque) && alignof(T) <= alignof(Opaque));
  return *std::launder(reinterpret_cast<T*>(opaque->data));
}
template <class T, class Opaque>
cublasStatus_t make(Opaque** opaque, T value) {
  *opaque = new Opaque{};
  new ((*opaque)->data) T(value);
  return CUBLAS_STATUS_SUCCESS;
}
template <class Opaque>
cublasStatus_t destroy(Opaque* opaque) {
  delete opaque;
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t set(T& field, const void* value, std::size_t bytes) {
  if (!value || bytes != sizeof field) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

std::size_t width(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }
bool known(cudaDataType type) { return type == CUDA_R_32F || type == CUDA_R_16BF; }
bool aligned(const void* pointer, std::uint64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}
std::size_t bytes_of(const Layout& layout) {
  const auto leading = static_cast<std::uint64_t>(layout.leading);
  return ((layout.columns - 1) * leading + layout.rows) * width(layout.type);
}
bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}
bool on_device(const void* pointer) {
  cudaPointerAttributes attributes{};
  return pointer && cudaPointerGetAttributes(&attributes, pointer) == cudaSuccess &&
         (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged);
}

float load(const std::byte* data, cudaDataType type, std::size_t index) {
  if (type == CUDA_R_32F) return reinterpret_cast<const float*>(data)[index];
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(data)[index]);
}
void store(std::byte* data, cudaDataType type, std::size_t index, float value) {
  if (type == CUDA_R_32F)
    reinterpret_cast<float*>(data)[index] = value;
  else
    reinterpret_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
}

// sums[j, i] += sum over l of a[l, i] b[j, l]. Plain copies are its operands, so that sanitizers need not look.
__attribute__((no_sanitize("thread", "address", "undefined"), optimize("O3"))) void multiply(
    std::size_t m, std::size_t n, std::size_t k, const float* a, const float* b, float* sums) {
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t l = 0; l < k; ++l)
      for (std::size_t i = 0; i < m; ++i) sums[j * m + i] += a[l * m + i] * b[j * k + l];
}

// d = alpha op(a) op(b) + beta c (+ bias), by columns.
struct Job {
  Description description;
  Layout a_layout, b_layout, c_layout, d_layout;
  const std::byte *a, *b, *c;
  std::byte *d, *workspace;
  std::uint64_t workspace_bytes;
  float alpha, beta;

  std::size_t m() const { return d_layout.rows; }
  std::size_t n() const { return d_layout.columns; }
  std::size_t k() const { return description.a == CUBLAS_OP_N ? a_layout.columns : a_layout.rows; }

  cublasStatus_t refusal() const {
    for (const Layout& layout : {a_layout, b_layout, c_layout, d_layout}) {
      if (!known(layout.type)) return CUBLAS_STATUS_NOT_SUPPORTED;
      if (layout.rows == 0 || layout.columns == 0 || layout.leading < static_cast<std::int64_t>(layout.rows))
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool a_plain = description.a == CUBLAS_OP_N, b_plain = description.b == CUBLAS_OP_N;
    if ((a_plain ? a_layout.rows : a_layout.columns) != m() ||
        (b_plain ? b_layout.columns : b_layout.rows) != n() ||
        (b_plain ? b_layout.rows : b_layout.columns) != k() || c_layout.rows != m() ||
        c_layout.columns != n())
      return CUBLAS_STATUS_INVALID_VALUE;
    if (description.compute != CUBLAS_COMPUTE_32F || description.scale != CUDA_R_32F)
      return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a_layout.type != b_layout.type || c_layout.type != d_layout.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a_layout.type == CUDA_R_32F && d_layout.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    switch (description.epilogue) {
      case CUBLASLT_EPILOGUE_DEFAULT:
        return CUBLAS_STATUS_SUCCESS;
      case CUBLASLT_EPILOGUE_BIAS:
        return description.bias && aligned(description.bias, 16) ? CUBLAS_STATUS_SUCCESS
                                                                 : CUBLAS_STATUS_NOT_SUPPORTED;
      default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
  }

  void run() const {
    if (workspace_bytes > 0) std::memset(workspace, 0xff, workspace_bytes);
    const auto at = [](const Layout& layout, std::size_t row, std::size_t column) {
      return column * static_cast<std::size_t>(layout.leading) + row;
    };
    std::vector<float> left(m() * k()), right(n() * k()), sums(m() * n());
    for (std::size_t l = 0; l < k(); ++l)
      for (std::size_t i = 0; i < m(); ++i)
        left[l * m() + i] =
            load(a, a_layout.type, description.a == CUBLAS_OP_N ? at(a_layout, i, l) : at(a_layout, l, i));
    for (std::size_t j = 0; j < n(); ++j)
      for (std::size_t l = 0; l < k(); ++l)
        right[j * k() + l] =
            load(b, b_layout.type, description.b == CUBLAS_OP_N ? at(b_layout, l, j) : at(b_layout, j, l));
    multiply(m(), n(), k(), left.data(), right.data(), sums.data());
    const auto* const bias = description.epilogue == CUBLASLT_EPILOGUE_BIAS
                                 ? static_cast<const std::byte*>(description.bias)
                                 : nullptr;
    for (std::size_t j = 0; j < n(); ++j)
      for (std::size_t i = 0; i < m(); ++i) {
        float value = alpha * sums[j * m() + i];
        if (beta != 0) value += beta * load(c, c_layout.type, at(c_layout, i, j));
        if (bias) value += load(bias, d_layout.type, i);
        store(d, d_layout.type, at(d_layout, i, j), value);
      }
  }
};

Job job_of(cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
           cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  Job job{};
  job.description = view<Description>(description);
  job.a_layout = view<Layout>(a);
  job.b_layout = view<Layout>(b);
  job.c_layout = view<Layout>(c);
  job.d_layout = view<Layout>(d);
  return job;
}

// Rows that begin at multiples of fewer bytes than the pointer lower what may be counted on.
std::uint32_t common_alignment(std::uint32_t pointer, const Layout& layout) {
  const auto bytes = static_cast<std::uint64_t>(layout.leading) * width(layout.type);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>({pointer, bytes & -bytes, 16}));
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an invalid value";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    default:
      return "failed";
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
  return make(layout, Layout{type, rows, columns, leading});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return make(description,
              Description{compute, scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) { return destroy(description); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
  Description& description = view<Description>(opaque);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(description.a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(description.b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(description.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(description.bias, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return make(preference, Preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, 256, 256, 256, 256});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  Preference& preference = view<Preference>(opaque);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(preference.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set(preference.schemes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(preference.a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(preference.b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(preference.c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(preference.d, value, bytes);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t opaque, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  if (wanted < 1 || !results || !count) return CUBLAS_STATUS_INVALID_VALUE;
  *count = 0;
  const Job job = job_of(description, a, b, c, d);
  if (const cublasStatus_t refusal = job.refusal(); refusal != CUBLAS_STATUS_SUCCESS) return refusal;
  const Preference& preference = view<Preference>(opaque);
  // The sums of a divided k would depend on time, or be rounded to bf16.
  if (preference.schemes & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Algorithm algorithm{
      std::min<std::uint64_t>(preference.workspace, 4096), common_alignment(preference.a, job.a_layout),
      common_alignment(preference.b, job.b_layout), common_alignment(preference.c, job.c_layout),
      common_alignment(preference.d, job.d_layout)};
  if (std::min({algorithm.a, algorithm.b, algorithm.c, algorithm.d}) < 4) return CUBLAS_STATUS_NOT_SUPPORTED;
  results[0] = {};
  static_assert(sizeof(Algorithm) <= sizeof results[0].algo.data);
  new (results[0].algo.data) Algorithm(algorithm);
  results[0].workspaceSize = algorithm.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

// Descriptors and scalars are read now, as the library does; the matrices when the stream comes to it.
__attribute__((noinline)) cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void* alpha, const void* a,
    cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
    const void* c, cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
    const cublasLtMatmulAlgo_t* algo, void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  if (!handle || !alpha || !beta || !algo) return CUBLAS_STATUS_INVALID_VALUE;
  if (const int failure = cuda_on_host::injected_failure("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED))
    return static_cast<cublasStatus_t>(failure);
  Job job = job_of(description, a_layout, b_layout, c_layout, d_layout);
  if (const cublasStatus_t refusal = job.refusal(); refusal != CUBLAS_STATUS_SUCCESS) return refusal;
  job.a = static_cast<const std::byte*>(a);
  job.b = static_cast<const std::byte*>(b);
  job.c = static_cast<const std::byte*>(c);
  job.d = static_cast<std::byte*>(d);
  std::memcpy(&job.alpha, alpha, sizeof job.alpha);
  std::memcpy(&job.beta, beta, sizeof job.beta);

  Algorithm algorithm{};
  std::memcpy(&algorithm, algo->data, sizeof algorithm);
  if (!aligned(a, algorithm.a) || !aligned(b, algorithm.b) || !aligned(c, algorithm.c) ||
      !aligned(d, algorithm.d))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.workspace > 0) {
    if (algorithm.workspace > workspace_bytes || !aligned(workspace, 256) || !on_device(workspace))
      return CUBLAS_STATUS_INVALID_VALUE;
    job.workspace = static_cast<std::byte*>(workspace);
    job.workspace_bytes = algorithm.workspace;
  }
  if (!on_device(a) || !on_device(b) || !on_device(d) || (job.beta != 0 && !on_device(c)) ||
      (job.description.bias && !on_device(job.description.bias)))
    return CUBLAS_STATUS_INVALID_VALUE;
  const std::size_t d_bytes = bytes_of(job.d_layout);
  if (overlap(a, bytes_of(job.a_layout), d, d_bytes) || overlap(b, bytes_of(job.b_layout), d, d_bytes) ||
      overlap(workspace, algorithm.workspace, d, d_bytes) ||
      (job.beta != 0 && c != d && overlap(c, d_bytes, d, d_bytes)))
    return CUBLAS_STATUS_INVALID_VALUE;
  return cuda_on_host::enqueue(stream, [job] { job.run(); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                            : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
