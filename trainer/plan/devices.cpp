#include "trainer/plan/devices.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include "core/error.hpp"
#include "core/host.hpp"
#include "core/text.hpp"

namespace muster {
namespace {

constexpr double tera = 1e12, giga = 1e9, micro = 1e-6;
constexpr std::uint64_t mib = 1 << 20;

// A data sheet, and shares of it that were reached.
struct Sheet {
  std::string_view name, title;
  double memory_gib;        // what cudaMemGetInfo calls total
  double bf16, f32;         // FLOP/s dense; f32 on CUDA cores, without TF32
  double bandwidth;         // of its memory, bytes/s
  std::uint64_t cache_mib;  // L2
  double nvlink, network;   // bytes/s each way: NVLink, and the usual network adapter of a GPU
  double bf16_share, f32_share, attention_share, attention_gradient_share, copy_share, nvlink_share;
};

// Data sheets: NVIDIA A100 80GB SXM, H100 SXM, H200 SXM, HGX B200 (per GPU: an eighth of the board).
// Networks: HDR (200 Gbit/s a GPU) beside an A100, NDR (400 Gbit/s) beside the others, as in NVIDIA's DGX.
//
// bf16 share: the greatest that any product was seen to reach (S. Bekman, Machine Learning Engineering, "Maximum
// Achievable Matmul FLOPS": A100 271.2, H100 794.5, B200 1745 TFLOP/s; H200 taken as H100, the same chip).
// f32 share: an assumption, with no tabled source.
// Attention: NVIDIA's figures for cuDNN on H200, bf16, causal, head size 128, T = 2048: 484 TFLOP/s forward, 370
// backward with five products counted, of which Op::cost counts four; the same shares assumed for the others.
// Copy share: 3.02 of 3.35 TB/s seen on an H100; 0.9 assumed for the others.
// NVLink share: nccl-tests reach 360 GB/s of 450 on eight H100 and 230 to 240 of 300 on eight A100; 0.75 assumed
// for B200.
constexpr std::array<Sheet, 4> sheets = {{
    {"a100", "A100 SXM 80GB", 79.1, 312 * tera, 19.5 * tera, 2039 * giga, 40, 300 * giga, 25 * giga,  //
     0.87, 0.85, 0.49, 0.30, 0.90, 0.78},
    {"h100", "H100 SXM 80GB", 79.1, 989 * tera, 67 * tera, 3350 * giga, 50, 450 * giga, 50 * giga,  //
     0.80, 0.75, 0.49, 0.30, 0.90, 0.80},
    {"h200", "H200 SXM 141GB", 139.8, 989 * tera, 67 * tera, 4800 * giga, 50, 450 * giga, 50 * giga,  //
     0.80, 0.75, 0.49, 0.30, 0.90, 0.80},
    {"b200", "B200 SXM 180GB", 178.3, 2250 * tera, 75 * tera, 7700 * giga, 126, 900 * giga, 50 * giga,  //
     0.77, 0.75, 0.49, 0.30, 0.90, 0.75},
}};

// In f32 attention runs on a kernel without tensor cores: an assumed share of the rate of products.
constexpr double f32_attention_share = 0.5;
// What a stream needs between two kernels of a replayed graph, and NCCL to start and end a small collective within
// a node and between nodes: usual figures, to be replaced by measured ones.
constexpr double kernel_gap = 2.5 * micro, nvlink_latency = 15 * micro, network_latency = 35 * micro;
constexpr double network_share = 0.9;

DeviceModel model_from(const Sheet& sheet, Precision precision) {
  const bool bf16 = precision == Precision::bf16;
  DeviceModel model;
  model.name = sheet.title;
  model.kind = DeviceKind::cuda;
  model.memory_bytes = static_cast<std::uint64_t>(sheet.memory_gib * 1024) * mib;
  model.cache_bytes = sheet.cache_mib * mib;
  model.peak = bf16 ? sheet.bf16 : sheet.f32;
  model.product_rate = model.peak * (bf16 ? sheet.bf16_share : sheet.f32_share);
  model.attention_rate = bf16 ? model.peak * sheet.attention_share : model.product_rate * f32_attention_share;
  model.attention_gradient_rate =
      bf16 ? model.peak * sheet.attention_gradient_share : model.product_rate * f32_attention_share;
  model.bandwidth = sheet.bandwidth * sheet.copy_share;
  model.launch = kernel_gap;
  model.within_node = {nvlink_latency, sheet.nvlink * sheet.nvlink_share};
  model.between_nodes = {network_latency, sheet.network * network_share};
  model.ring = true;
  return model;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

}  // namespace

std::uint64_t gpu_runtime_bytes(int ranks) {
  // CUDA's context with the code of kernels, cuBLASLt and cuDNN; NCCL's channels and their buffers.
  constexpr std::uint64_t alone = 640 * mib, nccl = 512 * mib;
  return alone + (ranks > 1 ? nccl : 0);
}

std::vector<std::string> gpu_names() {
  std::vector<std::string> names;
  for (const Sheet& sheet : sheets) names.emplace_back(sheet.name);
  return names;
}

DeviceModel gpu_model(std::string_view name, Precision precision) {
  for (const Sheet& sheet : sheets)
    if (sheet.name == name) return model_from(sheet, precision);
  throw UserError("no data of a device {}; did you mean {}?", name, nearest_name(name, gpu_names()));
}

std::optional<DeviceModel> model_of_gpu(std::string_view device_name, Precision precision) {
  const std::string own = lower(device_name);
  for (const Sheet& sheet : sheets)
    if (own.find(sheet.name) != std::string::npos) return model_from(sheet, precision);
  return std::nullopt;
}

DeviceModel cpu_model(double matrix_peak, double bandwidth, std::uint64_t memory_bytes, bool busy_cores) {
  DeviceModel model;
  model.name = host_name();
  model.memory_bytes = memory_bytes;
  // docs/benchmarks.md, of 117 GFLOP/s in registers, f32: products 80 to 93%; attention 85 to 91, forward and backward
  // alike.
  model.product_rate = 0.88 * matrix_peak;
  model.attention_rate = model.attention_gradient_rate = 0.75 * matrix_peak;
  model.bandwidth = bandwidth;
  model.launch = 2 * micro;
  model.busy_cores = busy_cores;
  // Messages inside a host are copied once, by one side; between hosts 10 Gbit/s Ethernet. Assumptions: muster bench
  // comm measures both.
  model.within_node = {50 * micro, bandwidth / 2};
  model.between_nodes = {100 * micro, 1.25 * giga};
  return model;
}

}  // namespace muster
