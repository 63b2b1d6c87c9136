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

}  // namespace
}  // namespace muster
