// How many threads a rank takes: the cores that it may use, divided by the ranks that may use the same ones.

#include "trainer/machine/rank_machine.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <string>

#include "comm/threads/ranks.hpp"
#include "core/topology.hpp"

namespace muster {
namespace {

// Binds this thread, which here is a rank, to the first of its cores.
void bind_to_one_core() {
  const CpuSet allowed = allowed_cpus();
  std::size_t first = 0;
  while (!allowed[first]) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

TEST(RankMachine, takes_as_many_threads_as_the_configuration_says) {
  EXPECT_EQ(threads_of_rank(3, 1), 3);
  EXPECT_EQ(threads_of_rank(3, 8), 3);
}

TEST(RankMachine, divides_its_cores_by_the_ranks_on_them) {
  const int cores = static_cast<int>(allowed_cpus().count());
  EXPECT_EQ(threads_of_rank(0, 1, {}), cores);
  EXPECT_EQ(threads_of_rank(0, cores, {}), 1);
  EXPECT_EQ(threads_of_rank(0, cores + 1, {}), 1);
}

TEST(RankMachine, takes_no_more_threads_than_its_control_group_grants_processors) {
  const int cores = static_cast<int>(allowed_cpus().count());
  EXPECT_EQ(threads_of_rank(0, 1, {0.5, "/g"}), 1);
  EXPECT_EQ(threads_of_rank(0, 1, {cores - 0.5, "/g"}), cores);
  EXPECT_EQ(threads_of_rank(0, 1, {cores + 8.0, "/g"}), cores);
  EXPECT_EQ(threads_of_rank(3, 1, {1, "/g"}), 3);
  RanksBeside bound(1);  // each has cores of its own, and all of them one grant
  bound.in_group = 2 * cores;
  EXPECT_EQ(threads_of_rank(0, bound, {2.0 * cores, "/g"}), 1);
  EXPECT_EQ(describe_quota({cores + 1.0, "/g"}), "");
  EXPECT_EQ(describe_quota({0.5, "/g"}),
            "the control group /g grants 0.5 of " + std::to_string(cores) + " cores");
}

TEST(RankMachine, shares_its_cores_with_the_ranks_that_a_launcher_gave_the_same) {
  if (allowed_cpus().count() < 2) GTEST_SKIP() << "one core: ranks cannot have different ones";
  run_ranks(3, [](Communicator& comm) {
    EXPECT_EQ(ranks_on_my_cores(comm).on_cores, 3);
    if (comm.rank() > 0) bind_to_one_core();
    EXPECT_EQ(ranks_on_my_cores(comm).on_cores, comm.rank() > 0 ? 2 : 1);
    // A job's share of a host, or a container's: one core for two ranks, not one for each.
    EXPECT_EQ(threads_of_rank(0, ranks_on_my_cores(comm)), comm.rank() > 0 ? 1 : threads_of_rank(0, 1));
    comm.barrier("end").wait();
  });
}

}  // namespace
}  // namespace muster
