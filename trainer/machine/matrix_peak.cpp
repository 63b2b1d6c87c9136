#include "trainer/machine/matrix_peak.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <memory>
#include <system_error>
#include <vector>

#include "comm/agree.hpp"
#include "core/arithmetic_rate.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/host.hpp"
#include "core/instruction_set.hpp"
#include "core/parallel.hpp"
#include "trainer/config/config.hpp"
#include "trainer/machine/large_product.hpp"
#include "trainer/machine/rank_machine.hpp"

namespace muster {
namespace {

// What this host has reached before with as many ranks and threads, in a file of its user's cache. A cache that cannot be
// read or written is no cache.
std::filesystem::path cache_file(const std::string& what, Precision precision, const Communicator& comm) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value != nullptr ? value : "");
  };
  const std::filesystem::path cache = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (cache.empty() && home.empty()) return {};
  const std::filesystem::path folder = cache.empty() ? home / ".cache" : cache;
  return folder / "muster" /
         fmt::format("{}-{}-{}-{}x{}", what, host_name(), spelling(precision), comm.local_size(),
                     thread_count());
}

double read_peak(const std::filesystem::path& file) {
  double peak = 0;
  std::ifstream(file) >> peak;
  return peak;
}

void keep_peak(const std::filesystem::path& file, double peak) {
  if (file.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  try {
    write_text_atomically(file, fmt::format("{}\n", peak));
  } catch (const UserError&) {
  }
}

// Of what the ranks of a host got of its cores, and what they asked for.
struct CoresGot {
  double got = 0, asked = 0;
};

// The host whose ranks got least, if that is so little that a step shows it.
std::string remark_on_others(Communicator& comm, CoresGot mine) {
  constexpr double usual = 0.85;  // a clock that rises and falls looks like less
  std::string packed(sizeof mine, 0);
  std::memcpy(packed.data(), &mine, sizeof mine);
  std::map<std::string, CoresGot> hosts;
  for (const std::string& rank : gather_strings(comm, packed + host_identity(), "cores that ranks got")) {
    CoresGot its;
    std::memcpy(&its, rank.data(), sizeof its);
    CoresGot& host = hosts[rank.substr(sizeof its)];
    host.got += its.got;
    host.asked += its.asked;
  }
  const auto share = [](const auto& host) { return host.second.got / host.second.asked; };
  const auto least = std::ranges::min_element(hosts, {}, share);
  if (share(*least) >= usual) return {};
  const std::string name = least->first.substr(0, least->first.find(' '));
  return fmt::format(
      "others use the cores: {} got {:.0f}% of the {:.3g} {} asked for; times and sol are lower than alone",
      comm.size() == 1 ? "this process" : "the ranks on " + name, 100 * share(*least), least->second.asked,
      comm.size() == 1 ? "it" : "they");
}

MatrixPeak measure_cores(Precision precision, Communicator& comm) {
  constexpr double long_enough = 0.2, long_enough_again = 0.1;  // s; a system divides a core by some 5 ms
  const DType type = precision == Precision::bf16 ? DType::bf16 : DType::f32;
  const double share = static_cast<double>(threads_of_rank(0, 1)) / ranks_on_my_cores(comm).on_cores;
  const double cores = std::min<double>(thread_count(), share);
  const std::filesystem::path file =
      cache_file(fmt::format("core-peak-{}", spelling(instruction_set())), precision, comm);
  const double before = read_peak(file);
  comm.barrier("measuring the matrix peak").wait();
  const ArithmeticRate rate = measure_arithmetic(register_loop(instruction_set(), type),
                                                 before > 0 ? long_enough_again : long_enough);
  MatrixPeak peak;
  peak.flops_per_s = mean_of_ranks(comm, cores * std::max(before, rate.per_core), "matrix peak");
  if (comm.local_rank() == 0 && rate.per_core > before) keep_peak(file, rate.per_core);
  peak.remark = remark_on_others(comm, {rate.cores, cores});
  return peak;
}

MatrixPeak measure_gpus(Precision precision, Communicator& comm, Machine& machine) {
  using Clock = std::chrono::steady_clock;
  const std::unique_ptr<LargeProduct> product = large_product(precision, machine);
  const std::filesystem::path file = cache_file("matrix-peak-cuda", precision, comm);
  double before = comm.rank() == 0 ? read_peak(file) : 0;
  comm.broadcast(std::as_writable_bytes(std::span(&before, 1)), 0, "matrix peak of other runs").wait();
  comm.barrier("measuring the matrix peak").wait();
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(before > 0 ? 50 : 300);
  do best = std::max(best, product->run());
  while (Clock::now() < end);
  const double now = least_of_ranks(comm, best, "matrix peak");
  if (comm.rank() == 0 && now > before) keep_peak(file, now);
  return {std::max(now, before), {}};
}

}  // namespace

MatrixPeak measure_matrix_peak(Precision precision, Communicator& comm, Machine& machine) {
  return machine.is_cpu() ? measure_cores(precision, comm) : measure_gpus(precision, comm, machine);
}

double speed_of_light(double flops, double peak, int ranks, double seconds) {
  return flops / (peak * ranks * seconds);
}

}  // namespace muster
