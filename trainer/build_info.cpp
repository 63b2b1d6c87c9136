#include "trainer/build_info.hpp"

#include <CLI/Version.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fmt/chrono.h>
#include <fstream>
#include <gnu/libc-version.h>
#include <hdf5.h>
#include <link.h>
#include <mpi.h>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.h>
#include <set>
#include <span>
#include <spdlog/version.h>
#include <sstream>
#include <toml++/toml.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/instruction_set.hpp"

namespace muster {
namespace {

// The value of the first line of /proc/cpuinfo that starts with `name`.
std::string cpu_field(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    const std::size_t colon = line.find(':');
    if (colon != std::string::npos && colon + 2 <= line.size()) return line.substr(colon + 2);
  }
  return "unknown";
}

// Those of the processor's flags by which libraries choose their kernels: all of them, or those of the C library.
enum class Chooser : std::uint8_t { any, c_library };

std::string instruction_sets(Chooser chooser) {
  constexpr std::array all = {"avx2",        "fma",         "avx512f",  "avx512bw", "avx512vl", "avx512_vnni",
                              "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "avx_vnni"};
  const std::span known = std::span(all).first(chooser == Chooser::c_library ? 2 : all.size());
  std::istringstream flags(cpu_field("flags"));
  std::set<std::string> mine;
  for (std::string flag; flags >> flag;) mine.insert(flag);
  std::string text;
  for (const char* flag : known) {
    if (mine.contains(flag)) text += fmt::format("{}{}", text.empty() ? "" : " ", flag);
  }
  return text;
}

std::string hdf5_version() {
  unsigned major = 0, minor = 0, patch = 0;
  if (H5get_libversion(&major, &minor, &patch) < 0) return "unknown";
  return fmt::format("{}.{}.{}", major, minor, patch);
}

std::uint64_t hash_of_program() {
  const std::string path = "/proc/self/exe";
  std::vector<char> program(std::filesystem::file_size(path));
  std::ifstream(path, std::ios::binary).read(program.data(), static_cast<std::streamsize>(program.size()));
  const auto commit_place = place_in_program(commit_text.data());
  check(commit_place && *commit_place + commit_text.size() <= program.size(),
        "the program's file names its commit");
  std::fill_n(program.begin() + static_cast<std::ptrdiff_t>(*commit_place), commit_text.size(), '\0');
  return hash_bytes(std::as_bytes(std::span(program)));
}

std::string dnnl_version_text() {
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("{}.{}.{}", v->major, v->minor, v->patch);
}

}  // namespace

std::string mpi_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "unknown";
  const std::string whole(text.data());
  return whole.substr(0, std::min(whole.find(','), whole.find('\n')));
}

std::string version() { return MUSTER_VERSION; }
std::string backends() { return MUSTER_BACKENDS; }

std::string describe_build() {
  return fmt::format("muster {}\ncommit {}\nbackends {}", version(),
                     commit().empty() ? "unknown: built without git" : commit(), backends());
}

std::vector<std::pair<std::string, std::string>> library_versions() {
  const auto triple = [](int major, int minor, int patch) {
    return fmt::format("{}.{}.{}", major, minor, patch);
  };
  const unsigned hash = XXH_versionNumber();
  return {
      {"mpi", mpi_version()},
      {"hdf5", hdf5_version()},
      {"onednn", dnnl_version_text()},
      {"glibc", gnu_get_libc_version()},
      {"xxhash", fmt::format("{}.{}.{}", hash / 10000, hash / 100 % 100, hash % 100)},
      {"zlib", zlibVersion()},
      {"zstd", ZSTD_versionString()},
      {"fmt", triple(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"spdlog", triple(SPDLOG_VER_MAJOR, SPDLOG_VER_MINOR, SPDLOG_VER_PATCH)},
      {"toml++", triple(TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
      {"nlohmann_json",
       triple(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
      {"cli11", CLI11_VERSION},
  };
}

std::optional<std::size_t> place_in_program(const void* address) {
  struct Search {
    std::uintptr_t address;
    std::optional<std::size_t> place;
  } search{reinterpret_cast<std::uintptr_t>(address), {}};
  const auto in_first = [](dl_phdr_info* object, std::size_t, void* context) {
    auto& [wanted, place] = *static_cast<Search*>(context);
    for (const auto& part : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
      const std::uintptr_t begin = object->dlpi_addr + part.p_vaddr;
      if (part.p_type == PT_LOAD && wanted >= begin && wanted < begin + part.p_filesz)
        place = wanted - begin + part.p_offset;
    }
    return 1;  // the first object is the program
  };
  dl_iterate_phdr(in_first, &search);
  return search.place;
}

std::string fingerprint(const std::string& device) {
  // oneDNN computes only where there are tiles, on whatever it finds.
  const Chooser chooser = instruction_set() == InstructionSet::amx ? Chooser::any : Chooser::c_library;
  return fmt::format("binary {}; {} ({}); onednn {}; glibc {}; {}", hex(hash_of_program()),
                     spelling(instruction_set()), instruction_sets(chooser), dnnl_version_text(),
                     gnu_get_libc_version(), device);
}

std::string describe_run(std::int64_t attempt, const std::vector<std::string>& hosts,
                         const std::string& device, const std::string& fingerprint) {
  nlohmann::ordered_json json;
  json["muster"] = version();
  json["commit"] = commit();
  json["backends"] = backends();
  json["attempt"] = attempt;
  json["started"] =
      fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                  fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  json["ranks"] = hosts.size();
  json["hosts"] = hosts;
  json["device"] = device;
  json["cpu"] = cpu_field("model name");
  json["instruction_sets"] = instruction_sets(Chooser::any);
  json["instruction_set"] = spelling(instruction_set());
  json["compiler"] = "gcc " __VERSION__;
  for (const auto& [name, text] : library_versions()) json["libraries"][name] = text;
  json["fingerprint"] = fingerprint;
  return json.dump(2) + "\n";
}

}  // namespace muster
