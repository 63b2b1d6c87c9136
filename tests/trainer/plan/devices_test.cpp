// The table of devices: its figures fit each other, and names find their rows.

#include "trainer/plan/devices.hpp"

#include <gtest/gtest.h>
#include <string>

#include "core/error.hpp"

namespace muster {
namespace {

constexpr Precision precisions[] = {Precision::f32, Precision::bf16};

TEST(Devices, reach_less_than_their_data_sheets_promise) {
  for (const std::string& name : gpu_names())
    for (const Precision precision : precisions) {
      const DeviceModel device = gpu_model(name, precision);
      EXPECT_EQ(device.kind, DeviceKind::cuda) << name;
      EXPECT_GT(device.attention_gradient_rate, 0) << name;
      EXPECT_LE(device.attention_gradient_rate, device.attention_rate) << name;
      EXPECT_LT(device.attention_rate, device.product_rate) << name;
      EXPECT_LT(device.product_rate, device.peak) << name;
      EXPECT_GT(device.launch, 0) << name;
    }
}

TEST(Devices, are_faster_in_bf16_and_within_a_node) {
  for (const std::string& name : gpu_names()) {
    const DeviceModel f32 = gpu_model(name, Precision::f32), bf16 = gpu_model(name, Precision::bf16);
    EXPECT_GT(bf16.peak, 10 * f32.peak) << name;
    EXPECT_EQ(bf16.memory_bytes, f32.memory_bytes) << name;
    EXPECT_GT(bf16.within_node.bandwidth, 4 * bf16.between_nodes.bandwidth) << name;
    EXPECT_LT(bf16.within_node.latency, bf16.between_nodes.latency) << name;
    EXPECT_LT(bf16.within_node.bandwidth, bf16.bandwidth) << name;
  }
}

TEST(Devices, lack_nothing_that_an_older_one_has) {
  const std::string ages[] = {"a100", "h100", "h200", "b200"};
  for (std::size_t i = 0; i + 1 < std::size(ages); ++i) {
    const DeviceModel older = gpu_model(ages[i], Precision::bf16),
                      newer = gpu_model(ages[i + 1], Precision::bf16);
    EXPECT_LE(older.peak, newer.peak);
    EXPECT_LT(older.bandwidth, newer.bandwidth);
    EXPECT_LE(older.memory_bytes, newer.memory_bytes);
    EXPECT_LE(older.cache_bytes, newer.cache_bytes);
    EXPECT_LE(older.within_node.bandwidth, newer.within_node.bandwidth);
  }
}

TEST(Devices, are_found_by_the_name_that_a_driver_tells) {
  const auto h200 = model_of_gpu("NVIDIA H200", Precision::bf16);
  ASSERT_TRUE(h200);
  EXPECT_EQ(h200->name, gpu_model("h200", Precision::bf16).name);
  EXPECT_TRUE(model_of_gpu("NVIDIA A100-SXM4-80GB", Precision::f32));
  EXPECT_FALSE(model_of_gpu("NVIDIA GeForce RTX 4090", Precision::bf16));
}

TEST(Devices, that_are_not_in_the_table_are_refused_with_the_nearest_name) {
  try {
    gpu_model("h20", Precision::bf16);
    FAIL() << "no such device";
  } catch (const UserError& error) {
    EXPECT_EQ(std::string(error.what()), "no data of a device h20; did you mean h200?");
  }
}

TEST(Devices, a_cpu_is_what_was_measured) {
  const DeviceModel cpu = cpu_model(2e11, 2e10, 1 << 30, true);
  EXPECT_EQ(cpu.kind, DeviceKind::cpu);
  EXPECT_LT(cpu.product_rate, 2e11);  // no product is as fast as registers
  EXPECT_GT(cpu.product_rate, 1.6e11);
  EXPECT_EQ(cpu.bandwidth, 2e10);
  EXPECT_EQ(cpu.memory_bytes, 1u << 30);
  EXPECT_EQ(cpu.peak, 0);  // no data sheet, no mfu
  EXPECT_FALSE(cpu.ring);
}

}  // namespace
}  // namespace muster
