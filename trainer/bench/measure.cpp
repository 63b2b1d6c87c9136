#include "trainer/bench/measure.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <unistd.h>
#include <utility>

#include "core/parallel.hpp"
#include "trainer/plan/devices.hpp"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

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

enum class Stores : std::uint8_t { usual, around_cache };

// `bytes` is a multiple of 16, as are both places.
void copy_around_cache(std::byte* to, const std::byte* from, std::int64_t bytes) {
#if defined(__x86_64__)
  for (std::int64_t at = 0; at < bytes; at += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_load_si128(reinterpret_cast<const __m128i*>(from + at)));
  _mm_sfence();
#else
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
#endif
}

void copy_by_threads(std::byte* to, const std::byte* from, std::uint64_t bytes, int threads, Stores stores) {
  constexpr std::int64_t line = 64, largest = 1 << 20;
  const auto count = static_cast<std::int64_t>(bytes);
  const std::int64_t piece = std::clamp((count / threads + line - 1) / line * line, line, largest);
  parallel_ranges(count, threads == 1 ? count : piece, [&](std::int64_t begin, std::int64_t end) {
    if (stores == Stores::around_cache)
      copy_around_cache(to + begin, from + begin, end - begin);
    else
      std::memcpy(to + begin, from + begin, static_cast<std::size_t>(end - begin));
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

FastestCopy::FastestCopy(Machine& machine, std::uint64_t cache_bytes) : machine_(machine) {
  const std::uint64_t bytes = std::bit_ceil(4 * cache_bytes);
  from_ = Buffer(account_, MemoryKind::activations, bytes, machine.device().memory());
  to_ = Buffer(account_, MemoryKind::activations, bytes, machine.device().memory());
  // Memory that was never written is one page of zeros, which caches hold.
  if (machine.is_cpu()) std::memset(from_.data(), 1, bytes);
}

double FastestCopy::bytes_per_s(double bytes) {
  constexpr double smallest = 64;
  bytes = std::clamp(bytes, smallest, 2 * static_cast<double>(from_.bytes()));
  const int below = std::ilogb(bytes);
  const double part = bytes / std::exp2(below) - 1;
  double seconds = this->seconds(below);
  if (part > 0) seconds += part * (this->seconds(below + 1) - seconds);
  return bytes / seconds;
}

// Of 2^logarithm bytes, read and written.
double FastestCopy::seconds(int logarithm) {
  if (const auto known = known_.find(logarithm); known != known_.end()) return known->second;
  double best = std::numeric_limits<double>::infinity();
  constexpr int runs = 11;
  const std::uint64_t bytes = std::uint64_t{1} << (logarithm - 1);
  const auto measure = [&](const std::function<void(std::byte*, const std::byte*, std::uint64_t)>& copy) {
    copy(to_.data(), from_.data(), from_.bytes());  // of what follows, nothing is in the cache
    std::uint64_t at = 0;
    const std::vector<double> all = seconds_of_runs(machine_.stream(), runs, [&] {
      copy(to_.data() + at, from_.data() + at, bytes);
      at = (at + bytes) % from_.bytes();
    });
    best = std::min(best, *std::ranges::min_element(all));
  };
  if (machine_.is_cpu()) {
    for (const int threads : {1, thread_count()})
      for (const Stores stores : {Stores::usual, Stores::around_cache})
        measure([&](std::byte* to, const std::byte* from, std::uint64_t count) {
          machine_.stream().enqueue([=](NativeStream) { copy_by_threads(to, from, count, threads, stores); });
        });
  } else {
    measure([&](std::byte* to, const std::byte* from, std::uint64_t count) {
      machine_.stream().copy(to, from, count);
    });
  }
  return known_[logarithm] = best;
}

}  // namespace muster
