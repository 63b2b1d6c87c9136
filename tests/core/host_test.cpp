#include "core/host.hpp"

#include <gtest/gtest.h>
#include <limits>
#include <unistd.h>

#include "core/file.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

// A tree of control groups with files of its own.
class ControlGroups : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_); }
  void TearDown() override { fs::remove_all(root_); }
  void write(const std::string& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    File::create((root_ / file).string()).write(text + "\n");
  }
  std::uint64_t left() const { return left_in_control_groups(root_ / "cgroup", root_ / "mine"); }

  CpuQuota quota() const { return quota_of_control_groups(root_ / "cgroup", root_ / "mine"); }

  fs::path root_ = ::testing::TempDir() + "muster-groups-" + std::to_string(getpid());
};

constexpr std::uint64_t unlimited = std::numeric_limits<std::uint64_t>::max();

TEST_F(ControlGroups, without_limits_leave_all) {
  EXPECT_EQ(left(), unlimited);
  write("mine", "0::/job");
  write("cgroup/job/memory.max", "max");
  EXPECT_EQ(left(), unlimited);
}

TEST_F(ControlGroups, of_version_2_leave_the_least_that_any_of_them_has) {
  write("mine", "0::/slurm/job/step");
  write("cgroup/slurm/job/memory.max", "1000");
  write("cgroup/slurm/job/memory.current", "400");
  write("cgroup/slurm/job/memory.stat", "anon 300\nactive_file 60\ninactive_file 40");
  EXPECT_EQ(left(), 700u);
  write("cgroup/slurm/job/step/memory.max", "500");
  write("cgroup/slurm/job/step/memory.current", "600");
  EXPECT_EQ(left(), 0u);
}

TEST_F(ControlGroups, of_version_1_have_a_tree_for_memory) {
  write("mine", "11:cpu,cpuacct:/other\n9:memory:/slurm/uid_0/job_7\n1:name=systemd:/x\n0::/unified");
  write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  write("cgroup/memory/slurm/uid_0/job_7/memory.limit_in_bytes", "1000");
  write("cgroup/memory/slurm/uid_0/job_7/memory.usage_in_bytes", "400");
  write("cgroup/memory/slurm/uid_0/job_7/memory.stat", "total_active_file 60\ntotal_inactive_file 40");
  write("cgroup/memory/other/memory.limit_in_bytes", "1");
  EXPECT_EQ(left(), 700u);
}

TEST_F(ControlGroups, of_version_2_grant_the_least_processors_that_any_of_them_has) {
  write("mine", "0::/kubepods/pod/container");
  EXPECT_EQ(quota().cpus, std::numeric_limits<double>::infinity());
  write("cgroup/kubepods/pod/container/cpu.max", "max 100000");
  EXPECT_EQ(quota().cpus, std::numeric_limits<double>::infinity());
  write("cgroup/kubepods/pod/cpu.max", "150000 100000");
  write("cgroup/kubepods/cpu.max", "800000 100000");
  EXPECT_EQ(quota().cpus, 1.5);
  EXPECT_EQ(quota().group, (root_ / "cgroup/kubepods/pod").string());
  write("cgroup/cpu.max", "50000 100000");  // as a container sees its own
  EXPECT_EQ(quota().cpus, 0.5);
}

TEST_F(ControlGroups, of_version_1_grant_processors_in_a_tree_of_their_own) {
  write("mine", "11:cpu,cpuacct:/docker/id\n9:memory:/other\n0::/unified");
  write("cgroup/cpu/docker/id/cpu.cfs_quota_us", "-1");
  write("cgroup/cpu/docker/id/cpu.cfs_period_us", "100000");
  EXPECT_EQ(quota().cpus, std::numeric_limits<double>::infinity());
  write("cgroup/cpu/docker/id/cpu.cfs_quota_us", "300000");
  EXPECT_EQ(quota().cpus, 3);
}

}  // namespace
}  // namespace muster
