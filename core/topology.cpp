#include "core/topology.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <fmt/format.h>
#include <fstream>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "core/text.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> line_of(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

// sysfs names a device "0000:1b:00.0"; nvidia-smi gives the domain eight digits.
std::string sysfs_name(std::string_view pci_bus_id) {
  std::string name(pci_bus_id);
  std::ranges::transform(name, name.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::size_t domain = name.find(':');
  if (domain == 8 && name.starts_with("0000")) name.erase(0, 4);
  return name;
}

// The threads of each core of `cpus`, in the order of their first threads.
std::vector<CpuSet> cores_of(CpuSet cpus, const fs::path& sys) {
  std::vector<CpuSet> cores;
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) {
    if (!cpus[cpu]) continue;
    const auto list =
        line_of(sys / "devices/system/cpu" / fmt::format("cpu{}", cpu) / "topology/thread_siblings_list");
    CpuSet core = (list ? parse_cpu_list(*list).value_or(CpuSet()) : CpuSet()) & cpus;
    core.set(cpu);
    cores.push_back(core);
    cpus &= ~core;
  }
  return cores;
}

}  // namespace

std::optional<CpuSet> parse_cpu_list(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  CpuSet cpus;
  while (!text.empty()) {
    const std::string_view range = text.substr(0, text.find(','));
    if (range.size() + 1 == text.size()) return std::nullopt;  // nothing after the comma
    text.remove_prefix(std::min(text.size(), range.size() + 1));
    const auto first = parse_number<std::size_t>(range.substr(0, range.find('-')));
    const auto last =
        range.find('-') == range.npos ? first : parse_number<std::size_t>(range.substr(range.find('-') + 1));
    if (!first || !last || *first > *last || *last >= cpus.size()) return std::nullopt;
    for (std::size_t cpu = *first; cpu <= *last; ++cpu) cpus.set(cpu);
  }
  return cpus;
}

std::string cpu_list(const CpuSet& cpus) {
  std::string text;
  for (std::size_t first = 0; first < cpus.size(); ++first) {
    if (!cpus[first]) continue;
    std::size_t last = first;
    while (last + 1 < cpus.size() && cpus[last + 1]) ++last;
    if (!text.empty()) text += ',';
    text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
    first = last;
  }
  return text;
}

std::optional<GpuPlace> place_of_gpu(std::string_view pci_bus_id, const fs::path& sys) {
  const fs::path device = sys / "bus/pci/devices" / sysfs_name(pci_bus_id);
  const auto list = line_of(device / "local_cpulist");
  const auto cpus = list ? parse_cpu_list(*list) : std::nullopt;
  if (!cpus || cpus->none()) return std::nullopt;
  const auto node = parse_number<std::size_t>(line_of(device / "numa_node").value_or("-1"));
  return GpuPlace{*cpus, node ? static_cast<int>(*node) : -1};
}

CpuSet allowed_cpus() {
  CpuSet cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu) cpus[cpu] = CPU_ISSET(cpu, &set);
  return cpus;
}

CpuSet cpus_of_rank(std::span<const Locality> ranks, std::size_t mine, const fs::path& sys) {
  const Locality& me = ranks[mine];
  const bool bound = std::ranges::any_of(ranks, [&](const Locality& r) { return r.allowed != me.allowed; });
  const CpuSet wanted = me.near & me.allowed;
  if (bound || wanted.none()) return me.allowed;

  const auto same = [&](const Locality& rank) { return rank.near == me.near; };
  const auto sharers = static_cast<std::size_t>(std::ranges::count_if(ranks, same));
  const auto place = static_cast<std::size_t>(std::ranges::count_if(ranks.first(mine), same));
  const std::vector<CpuSet> cores = cores_of(wanted, sys);
  if (cores.size() < sharers) return wanted;
  CpuSet share;
  for (std::size_t c = place * cores.size() / sharers; c < (place + 1) * cores.size() / sharers; ++c)
    share |= cores[c];
  return share;
}

bool bind_process(const CpuSet& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (std::size_t cpu = 0; cpu < cpus.size(); ++cpu)
    if (cpus[cpu]) CPU_SET(cpu, &set);
  std::error_code unreadable;
  for (const fs::directory_entry& thread : fs::directory_iterator("/proc/self/task", unreadable)) {
    const auto id = parse_number<std::size_t>(thread.path().filename().string());
    // A thread that has ended since needs no place.
    if (id && sched_setaffinity(static_cast<pid_t>(*id), sizeof set, &set) != 0 && errno != ESRCH)
      return false;
  }
  return !unreadable;
}

bool prefer_memory_of(int node) {
  constexpr int preferred =
      1;  // MPOL_PREFERRED of <numaif.h>, which belongs to a library not needed otherwise
  constexpr std::size_t bits = 8 * sizeof(unsigned long);
  std::array<unsigned long, 1024 / bits> nodes{};
  const auto n = static_cast<std::size_t>(node);
  if (node < 0 || n >= nodes.size() * bits) return false;
  nodes[n / bits] |= 1ul << (n % bits);
  return syscall(SYS_set_mempolicy, preferred, nodes.data(), nodes.size() * bits + 1) == 0;
}

}  // namespace muster
