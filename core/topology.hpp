// Which cores and memory of a host lie next to a GPU, and keeping a process there.
//
// A rank that feeds a GPU from the other socket sends every copy over the link between the sockets. Where the
// launcher has not bound the ranks, each is given its share of the cores next to its GPU.
#pragma once

#include <bitset>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace muster {

// Logical CPUs by the system's numbers.
using CpuSet = std::bitset<1024>;

// "0-3,8,10-11", as the kernel writes lists; nullopt if it is none.
std::optional<CpuSet> parse_cpu_list(std::string_view text);
std::string cpu_list(const CpuSet& cpus);

// Of one rank: where it may run, and what is next to its GPU. Plain bytes, to be gathered among a host's ranks.
struct Locality {
  CpuSet allowed;
  CpuSet near;    // none: unknown, or no GPU
  int node = -1;  // of memory; -1: unknown, or the only one
};

// Of the GPU at `pci_bus_id`, as CUDA ("0000:1B:00.0") or nvidia-smi ("00000000:1B:00.0") write it; nullopt if
// the system does not say.
struct GpuPlace {
  CpuSet cpus;
  int node = -1;
};
std::optional<GpuPlace> place_of_gpu(std::string_view pci_bus_id, const std::filesystem::path& sys = "/sys");

// What the calling thread may run on.
CpuSet allowed_cpus();

// Where rank `mine` of the host's ranks should run: on the cores next to its GPU, divided among the ranks for
// which these are the same. Whole cores are given, with all their threads, while there are enough. Ranks that
// a launcher has told apart already, and ranks without a place, stay where they are.
CpuSet cpus_of_rank(std::span<const Locality> ranks, std::size_t mine,
                    const std::filesystem::path& sys = "/sys");

// Keeps all threads of this process, and those that they start, on `cpus`. False if the system refuses.
bool bind_process(const CpuSet& cpus);

// Memory that the calling thread, and those that it starts, touch first comes from `node` while that has some.
// False if the system refuses, as containers may.
bool prefer_memory_of(int node);

}  // namespace muster
