#include "core/topology.hpp"

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <mutex>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace muster {
namespace {

namespace fs = std::filesystem;

CpuSet cpus(const std::string& list) { return parse_cpu_list(list).value(); }

TEST(CpuList, is_read_as_the_kernel_writes_it) {
  EXPECT_EQ(cpus("0-3,8,10-11\n").to_ulong(), 0b110100001111u);
  EXPECT_EQ(cpus("5").to_ulong(), 0b100000u);
  EXPECT_TRUE(cpus("").none());
  EXPECT_TRUE(cpus("\n").none());
}

TEST(CpuList, is_written_as_it_is_read) {
  for (const char* list : {"", "0", "0-3,8,10-11", "1,3,5", "1022-1023"})
    EXPECT_EQ(cpu_list(cpus(list)), list);
}

TEST(CpuList, refuses_what_is_none) {
  for (const char* text :
       {"a", "3-1", "1,", ",1", "1,,2", "0-", "-3", "1024", "0-99999999999999999999", "1 2"})
    EXPECT_FALSE(parse_cpu_list(text)) << text;
}

// Two sockets of four cores with two threads each, as the kernel numbers them: 0-3,8-11 and 4-7,12-15.
class Topology : public testing::Test {
 protected:
  void SetUp() override {
    for (int cpu = 0; cpu < 16; ++cpu)
      write("devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
            std::to_string(cpu % 8) + "," + std::to_string(cpu % 8 + 8));
    gpu("0000:1b:00.0", left, "0");
    gpu("0000:1c:00.0", left, "0");
    gpu("0000:9a:00.0", right, "1");
  }
  void TearDown() override { fs::remove_all(sys); }

  void write(const std::string& name, const std::string& line) const {
    fs::create_directories((sys / name).parent_path());
    std::ofstream(sys / name) << line << "\n";
  }
  void gpu(const std::string& id, const std::string& list, const std::string& node) const {
    write("bus/pci/devices/" + id + "/local_cpulist", list);
    write("bus/pci/devices/" + id + "/numa_node", node);
  }
  Locality at(const std::string& list, const std::string& allowed = "0-15") const {
    return {cpus(allowed), cpus(list), 0};
  }
  std::string share(const std::vector<Locality>& ranks, std::size_t mine) const {
    return cpu_list(cpus_of_rank(ranks, mine, sys));
  }

  const std::string left = "0-3,8-11", right = "4-7,12-15";
  const fs::path sys = fs::path(testing::TempDir()) / ("muster-topology-" + std::to_string(getpid()));
};

TEST_F(Topology, a_gpu_is_found_by_the_names_of_cuda_and_of_its_driver) {
  for (const char* id : {"0000:9A:00.0", "0000:9a:00.0", "00000000:9A:00.0"}) {
    const auto place = place_of_gpu(id, sys);
    ASSERT_TRUE(place) << id;
    EXPECT_EQ(cpu_list(place->cpus), right);
    EXPECT_EQ(place->node, 1);
  }
}

TEST_F(Topology, a_gpu_that_the_system_does_not_place_has_none) {
  EXPECT_FALSE(place_of_gpu("0000:ff:00.0", sys));
  EXPECT_FALSE(place_of_gpu("", sys));
  gpu("0000:01:00.0", "", "-1");
  EXPECT_FALSE(place_of_gpu("0000:01:00.0", sys));
  gpu("0000:02:00.0", "0-15", "-1");  // a host of one node
  ASSERT_TRUE(place_of_gpu("0000:02:00.0", sys));
  EXPECT_EQ(place_of_gpu("0000:02:00.0", sys)->node, -1);
}

TEST_F(Topology, ranks_next_to_the_same_cores_divide_them_core_by_core) {
  const std::vector<Locality> ranks = {at(left), at(left), at(right)};
  EXPECT_EQ(share(ranks, 0), "0-1,8-9");
  EXPECT_EQ(share(ranks, 1), "2-3,10-11");
  EXPECT_EQ(share(ranks, 2), right);
}

TEST_F(Topology, shares_are_disjoint_and_leave_no_core_out) {
  for (std::size_t count = 1; count <= 4; ++count) {
    const std::vector<Locality> ranks(count, at(left));
    CpuSet all;
    for (std::size_t rank = 0; rank < count; ++rank) {
      const CpuSet mine = cpus_of_rank(ranks, rank, sys);
      EXPECT_TRUE((all & mine).none()) << count;
      EXPECT_TRUE(mine.any()) << count;
      all |= mine;
    }
    EXPECT_EQ(cpu_list(all), left) << count;
  }
}

TEST_F(Topology, more_ranks_than_cores_share_all_of_them) {
  const std::vector<Locality> ranks(5, at(left));
  for (std::size_t rank = 0; rank < 5; ++rank) EXPECT_EQ(share(ranks, rank), left);
}

TEST_F(Topology, a_container_keeps_ranks_within_its_cores) {
  const std::vector<Locality> ranks(2, at(left, "2-7"));
  EXPECT_EQ(share(ranks, 0), "2");
  EXPECT_EQ(share(ranks, 1), "3");
}

TEST_F(Topology, ranks_that_the_launcher_has_bound_stay_there) {
  const std::vector<Locality> ranks = {at(left, "0-1"), at(left, "2-5")};
  EXPECT_EQ(share(ranks, 0), "0-1");
  EXPECT_EQ(share(ranks, 1), "2-5");
}

TEST_F(Topology, a_rank_without_a_place_or_far_from_it_stays_where_it_is) {
  EXPECT_EQ(share({at("")}, 0), "0-15");
  EXPECT_EQ(share({at(right, "0-3")}, 0), "0-3");
}

TEST(Binding, moves_all_threads_and_those_that_they_start) {
  const CpuSet before = allowed_cpus();
  ASSERT_TRUE(before.any());
  CpuSet one;
  for (std::size_t cpu = 0; one.none(); ++cpu) one[cpu] = before[cpu];

  CpuSet older, younger;
  bool asked = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::thread waiting([&] {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return asked; });
    older = allowed_cpus();
    std::thread([&] { younger = allowed_cpus(); }).join();
  });
  EXPECT_TRUE(bind_process(one));
  {
    const std::lock_guard lock(mutex);
    asked = true;
  }
  changed.notify_all();
  waiting.join();
  EXPECT_EQ(allowed_cpus(), one);
  EXPECT_EQ(older, one);
  EXPECT_EQ(younger, one);

  EXPECT_FALSE(bind_process(CpuSet())) << "the system refuses an empty set";
  EXPECT_EQ(allowed_cpus(), one);
  EXPECT_TRUE(bind_process(before));
  EXPECT_EQ(allowed_cpus(), before);
}

TEST(Binding, refuses_nodes_that_cannot_be) {
  EXPECT_FALSE(prefer_memory_of(-1));
  EXPECT_FALSE(prefer_memory_of(1 << 20));
}

}  // namespace
}  // namespace muster
