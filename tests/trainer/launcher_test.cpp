#include "trainer/launcher.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <string>

#include "comm/agree.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

class Launchers : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }

  // What one rank is told with these variables, "none" if nothing; `speaks_` tells whether it prints it.
  std::string refusal(const std::map<std::string, std::string>& variables, int ranks = 1) {
    clear();
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    try {
      Launcher().refuse_if_foreign(ranks);
    } catch (const UserError& error) {
      speaks_ = is_printed_here(error);
      return error.what();
    }
    return "none";
  }
  static void clear() {
    for (const char* name :
         {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_PROCID",
          "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"})
      unsetenv(name);
  }
  static bool tells(const std::string& message, const std::string& part) {
    return message.find(part) != std::string::npos;
  }
  bool speaks_ = false;
};

TEST_F(Launchers, of_another_mpi_is_named_with_the_one_that_would_do) {
  const std::string told = refusal({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}});
  EXPECT_TRUE(tells(told, "2 processes")) << told;
  EXPECT_TRUE(tells(told, "PMI_SIZE")) << told;
  EXPECT_TRUE(tells(told, "mpirun of Open MPI")) << told;
  EXPECT_TRUE(speaks_);
  EXPECT_EQ(refusal({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), told);
  EXPECT_FALSE(speaks_) << "the first speaks for all";
}

TEST_F(Launchers, of_slurm_without_pmix_is_named_with_the_way_to_have_it) {
  const std::string told =
      refusal({{"SLURM_PROCID", "0"}, {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}});
  EXPECT_TRUE(tells(told, "4 processes")) << told;
  EXPECT_TRUE(tells(told, "--mpi=pmix")) << told;
}

TEST_F(Launchers, that_started_one_process_or_joins_them_is_fine) {
  EXPECT_EQ(refusal({}), "none");
  EXPECT_EQ(refusal({{"PMI_SIZE", "1"}}), "none");
  EXPECT_EQ(refusal({{"OMPI_COMM_WORLD_SIZE", "4"}}, 4), "none");
  EXPECT_EQ(refusal({{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_ID", "0"}}, 4), "none");
  // The batch script of a job for four tasks, and an mpirun in it.
  EXPECT_EQ(refusal({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}), "none");
  EXPECT_EQ(refusal({{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "4"}}),
            "none");
}

}  // namespace
}  // namespace muster
