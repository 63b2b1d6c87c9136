#include "trainer/bench/measure.hpp"

#include <algorithm>
#include <cstring>
#include <unistd.h>
#include <utility>

#include "core/parallel.hpp"
#include "trainer/plan/devices.hpp"

namespace muster {
namespace {

// Of a GPU that is not in the table, and the most of a CPU: a virtual machine is told all that its socket has, but a
// core fills no more than what stands beside it.
constexpr std::uint64_t usual_cache = std::uint64_t{64} << 20;

// A CPU's stream copies on one thread; the ceiling is that of all.
void append_copy(Machine& machine, const Buffer& to, const Buffer& from) {
  if (!machine.is_cpu()) return machine.stream().copy(to.data(), from.data(), from.bytes());
  machine.stream().enqueue([&](NativeStream) {
    parallel_ranges(
        static_cast<std::int64_t>(from.bytes()), 1 << 20, [&](std::int64_t begin, std::int64_t end) {
          std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
        });
  });
}

}  // namespace

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

std::vector<double> seconds_of_runs(Stream& stream, int times, const std::function<void()>& append) {
  append();
  std::vector<std::pair<std::function<double()>, std::function<double()>>> stamps;
  for (int i = 0; i < times; ++i) {
    auto begin = stream.timestamp();
    append();
    stamps.emplace_back(std::move(begin), stream.timestamp());
  }
  stream.synchronize();
  std::vector<double> seconds;
  for (const auto& [begin, end] : stamps) seconds.push_back(end() - begin());
  return seconds;
}

std::uint64_t last_level_cache(const Device& device) {
  if (device.kind() == DeviceKind::cuda) {
    const auto known = model_of_gpu(device.name(), Precision::f32);
    return known ? known->cache_bytes : usual_cache;
  }
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? std::min(static_cast<std::uint64_t>(bytes), usual_cache) : usual_cache;
}

CacheFlush::CacheFlush(Machine& machine, std::uint64_t cache_bytes) : machine_(machine) {
  const std::uint64_t bytes = 4 * cache_bytes;
  from_ = Buffer(account_, MemoryKind::activations, bytes, machine.device().memory());
  to_ = Buffer(account_, MemoryKind::activations, bytes, machine.device().memory());
}

void CacheFlush::append() { append_copy(machine_, to_, from_); }

double measure_copy_bandwidth(Machine& machine) {
  CacheFlush copy(machine, last_level_cache(machine.device()));
  const std::vector<double> seconds = seconds_of_runs(machine.stream(), 5, [&] { copy.append(); });
  return 2 * static_cast<double>(copy.bytes()) / *std::ranges::min_element(seconds);
}

}  // namespace muster
