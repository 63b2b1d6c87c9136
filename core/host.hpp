// The machine that this process runs on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

namespace muster {

std::string host_name();  // "unknown" if it has none

// Of no other host, also where all of them call themselves "localhost": its name, and the id that its system drew when
// it started.
std::string host_identity();

// The id that this host's system drew when it started; empty where it tells none.
std::string boot_id();

// Of the space in which processes have their numbers, which is each container's own; 0 where the system tells none.
std::uint64_t pid_namespace();

// When the process of this space started, in ticks since the host did; none where there is no such process, or one that
// has ended and only waits for its parent to notice. With boot_id(), pid_namespace() and its number it names a process for
// ever: numbers come again, in a container that is restarted even the same ones.
std::optional<std::uint64_t> start_of_process(std::int64_t pid);
std::optional<std::uint64_t> start_of_this_process();

// The lesser of the memory that the system calls available and what the control groups (container, batch job)
// leave.
std::uint64_t available_host_bytes();

// What the groups that `mine`, as /proc/self/cgroup, names below `root` leave; the largest number without limits.
std::uint64_t left_in_control_groups(const std::filesystem::path& root, const std::filesystem::path& mine);

// How many processors' time the control groups grant, which may be less than the processors that one may run on: a
// container with --cpus=2 sees all of its host's.
struct CpuQuota {
  double cpus = std::numeric_limits<double>::infinity();
  std::string group = {};  // the one that has the limit

  bool operator<(const CpuQuota& other) const { return cpus < other.cpus; }
};
CpuQuota cpu_quota();
CpuQuota quota_of_control_groups(const std::filesystem::path& root, const std::filesystem::path& mine);

// Memory of this process that is its own: RssAnon + RssShmem. Before a run takes its buffers this is what
// libraries, code and stacks take, the line `runtime` of a plan.
std::uint64_t resident_bytes();

}  // namespace muster
