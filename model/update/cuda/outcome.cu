// The reports of a step's leaves, and its outcome, whose sums run over fixed trees. Each is a few bytes but the squares,
// which are read once (8 bytes for a block of the flat space).
#include <cmath>
#include <limits>

#include "model/ops/cuda/device.cuh"
#include "model/update/cuda/kernels.hpp"
#include "model/update/outcome.hpp"

namespace muster::cuda {
namespace {

__global__ void add_report_kernel(LeafReport more, const double* loss, bool first, LeafReport* to) {
  LeafReport report = first ? LeafReport{} : *to;
  report.loss += more.loss + (loss != nullptr ? *loss : 0.0);
  report.targets += more.targets;
  report.stop |= more.stop;
  report.failed |= more.failed;
  *to = report;
}

// At distance 1, 2, 4, ...: the tree over a warp's lanes. Leaves that are missing on the right are zeros, which leave
// sums of squares as they are.
__device__ inline double tree_sum_of_warp(double x) {
  for (int distance = 1; distance < warp_size; distance *= 2) x += __shfl_xor_sync(all_lanes, x, distance);
  return x;
}

constexpr int tree_threads = 256, tree_leaves_of_thread = 8;
constexpr std::int64_t tree_leaves = tree_threads * tree_leaves_of_thread;

// A block sums an aligned subtree of 2,048 leaves, stride apart, and leaves the sum in the first.
__global__ void __launch_bounds__(tree_threads)
    sum_subtrees(double* x, std::int64_t count, std::int64_t stride) {
  __shared__ double of_warps[warp_size];
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * tree_leaves * stride;
  const int thread = static_cast<int>(threadIdx.x);
  double leaves[tree_leaves_of_thread];
  for (int k = 0; k < tree_leaves_of_thread; ++k) {
    const std::int64_t i = begin + (thread * tree_leaves_of_thread + k) * stride;
    leaves[k] = i < count ? x[i] : 0.0;
  }
  for (int distance = 1; distance < tree_leaves_of_thread; distance *= 2)
    for (int k = 0; k < tree_leaves_of_thread; k += 2 * distance) leaves[k] += leaves[k + distance];
  const double of_warp = tree_sum_of_warp(leaves[0]);
  if (thread % warp_size == 0) of_warps[thread / warp_size] = of_warp;
  __syncthreads();
  if (thread >= warp_size) return;
  const double sum = tree_sum_of_warp(thread < tree_threads / warp_size ? of_warps[thread] : 0.0);
  if (thread == 0) x[begin] = sum;
}

struct Totals {
  double loss = 0;
  std::int64_t targets = 0;
  std::uint32_t stop = 0, failed = 0;
};

// By one warp, 32 leaves at a time. Their sums are 32-leaf subtrees, added as a binary counter counts: `open` holds
// the sums of the subtrees that wait for their right neighbour, of 32 2^level leaves for each bit of `done`.
__device__ Totals total_of(const LeafReport* leaves, std::int64_t count) {
  const int lane = static_cast<int>(threadIdx.x);
  double open[32];
  unsigned done = 0;
  Totals totals;
  for (std::int64_t begin = 0; begin < count; begin += warp_size) {
    const LeafReport leaf = begin + lane < count ? leaves[begin + lane] : LeafReport{};
    double sum = tree_sum_of_warp(leaf.loss);
    totals.targets += warp_sum(leaf.targets);
    totals.stop |= __ballot_sync(all_lanes, leaf.stop != 0) != 0 ? 1u : 0u;
    totals.failed |= __ballot_sync(all_lanes, leaf.failed != 0) != 0 ? 1u : 0u;
    int level = 0;
    for (; (done >> level & 1u) != 0; ++level) sum = open[level] + sum;
    open[level] = sum;
    ++done;
  }
  bool empty = true;
  for (int level = 0; done >> level != 0; ++level) {
    if ((done >> level & 1u) == 0) continue;
    totals.loss = empty ? open[level] : open[level] + totals.loss;
    empty = false;
  }
  return totals;
}

__device__ inline bool finite(double x) { return fabs(x) <= std::numeric_limits<double>::max(); }

__global__ void __launch_bounds__(warp_size)
    finish_step_kernel(OutcomeRule rule, const LeafReport* leaves, std::int64_t count, const double* squares,
                       StepOutcome* outcome) {
  const Totals totals = total_of(leaves, count);
  if (threadIdx.x != 0) return;
  StepOutcome result;
  result.updates = outcome->updates;
  result.targets = totals.targets;
  result.stop = totals.stop;
  result.failed = totals.failed;
  const auto n = static_cast<double>(result.targets);
  if (result.targets > 0) {
    result.loss = totals.loss / n;
    result.grad_norm = (squares != nullptr ? sqrt(*squares) : 0.0) / n;
  }
  const bool skipped =
      result.targets == 0 || result.failed != 0 || !finite(result.loss) || !finite(result.grad_norm);
  result.skipped = skipped ? 1 : 0;
  if (!skipped) {
    result.clipped = rule.clip > 0 && result.grad_norm > rule.clip ? 1 : 0;
    const double factor = rule.clip > 0 ? fmin(1.0, rule.clip / (result.grad_norm + 1e-6)) : 1.0;
    result.gradient_scale = static_cast<float>(factor / n);
    const auto updates = static_cast<double>(++result.updates);
    result.correction1 = 1 - pow(rule.averages[0], updates);
    result.correction2 = 1 - pow(rule.averages[1], updates);
  }
  *outcome = result;
}

}  // namespace

void add_report(NativeStream stream, LeafReport more, const double* loss, bool first, LeafReport* to) {
  launch(add_report_kernel, 1, 1, 0, stream, more, loss, first, to);
}

void finish_step(NativeStream stream, const OutcomeRule& rule, std::span<const LeafReport> leaves,
                 std::span<double> squares, StepOutcome* outcome) {
  const auto count = static_cast<std::int64_t>(squares.size());
  for (std::int64_t stride = 1; stride < count; stride *= tree_leaves)
    launch(sum_subtrees, dim3(static_cast<unsigned>(divide_up(count, stride * tree_leaves))), tree_threads, 0,
           stream, squares.data(), count, stride);
  launch(finish_step_kernel, 1, warp_size, 0, stream, rule, leaves.data(),
         static_cast<std::int64_t>(leaves.size()), squares.empty() ? nullptr : squares.data(), outcome);
}

}  // namespace muster::cuda
