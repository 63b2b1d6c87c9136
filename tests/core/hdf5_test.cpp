#include "core/hdf5.hpp"

#include <csignal>
#include <filesystem>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <numeric>
#include <sys/resource.h>
#include <unistd.h>
#include <vector>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/hash.hpp"

namespace muster {
namespace {

using ::testing::TempDir;

template <class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

bool tells(const std::string& message, std::initializer_list<std::string_view> parts) {
  for (const std::string_view part : parts)
    if (message.find(part) == std::string::npos) return false;
  return message.find('\n') == std::string::npos;
}

class Hdf5 : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_ = TempDir() + "muster-hdf5-" + std::to_string(getpid());
};

// A disk that is full after `bytes`, without a disk of its own: files may not grow further.
class SmallDisk {
 public:
  explicit SmallDisk(std::uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(Hdf5, reads_back_what_was_written_in_pieces) {
  std::vector<float> weights(1000);
  std::iota(weights.begin(), weights.end(), 0.5f);
  const std::vector<std::uint16_t> tokens = {1, 2, 65535};
  {
    H5File file = H5File::create(path("a.h5"));
    H5Dataset dataset = file.create_dataset("adam.m/block.0/weight", DType::f32, 1000);
    dataset.write<float>(400, std::span<const float>(weights).subspan(400));
    dataset.write<float>(0, std::span<const float>(weights).first(400));
    file.create_dataset("tokens", DType::u16, 3).write<std::uint16_t>(0, tokens);
    file.create_dataset("empty", DType::i64, 0);
    file.set_attribute("/", "format", std::int64_t{7});
    file.set_attribute("adam.m/block.0/weight", "shape", "[10, 100]");
    file.set_attribute("/", "nothing", "");
    file.close();
  }
  const H5File file = H5File::open_to_read(path("a.h5"));
  EXPECT_EQ(file.datasets(), (std::vector<std::string>{"adam.m/block.0/weight", "empty", "tokens"}));
  EXPECT_EQ(file.datasets("/adam.m"), (std::vector<std::string>{"adam.m/block.0/weight"}));
  EXPECT_TRUE(file.contains("adam.m/block.0/weight"));
  EXPECT_FALSE(file.contains("adam.v/block.0/weight"));
  const H5Dataset dataset = file.dataset("adam.m/block.0/weight");
  ASSERT_EQ(dataset.length(), 1000u);
  EXPECT_EQ(dataset.type(), DType::f32);
  std::vector<float> got(100);
  dataset.read<float>(350, got);
  EXPECT_TRUE(std::equal(got.begin(), got.end(), weights.begin() + 350));
  std::vector<std::int64_t> wide(3);
  file.dataset("tokens").read<std::int64_t>(0, wide);
  EXPECT_EQ(wide, (std::vector<std::int64_t>{1, 2, 65535}));
  EXPECT_EQ(file.dataset("empty").length(), 0u);
  EXPECT_EQ(file.integer_attribute("/", "format"), 7);
  EXPECT_EQ(file.string_attribute("/", "nothing"), "");
  EXPECT_EQ(file.string_attribute("adam.m/block.0/weight", "shape"), "[10, 100]");
}

TEST_F(Hdf5, elements_lie_at_the_offset_that_it_names) {
  const std::vector<std::uint32_t> values = {10, 20, 30, 40};
  H5File file = H5File::create(path("a.h5"));
  file.create_dataset("values", DType::u32, 4).write<std::uint32_t>(0, values);
  file.close();
  const auto offset = H5File::open_to_read(path("a.h5")).dataset("values").file_offset();
  ASSERT_TRUE(offset.has_value());
  std::vector<std::uint32_t> got(4);
  File::open_to_read(path("a.h5")).read_exactly(std::as_writable_bytes(std::span(got)), *offset);
  EXPECT_EQ(got, values);
}

TEST_F(Hdf5, faults_name_the_file_and_the_remedy) {
  EXPECT_TRUE(
      tells(message_of([&] { H5File::open_to_read(path("none.h5")); }), {"none.h5", "check the path"}));
  File::create(path("text.h5")).write("this is no HDF5 file");
  EXPECT_TRUE(
      tells(message_of([&] { H5File::open_to_read(path("text.h5")); }), {"text.h5", "make it again"}));
  EXPECT_TRUE(
      tells(message_of([&] { H5File::create(path("no/such/folder.h5")); }), {"folder.h5", "check the path"}));

  H5File file = H5File::create(path("a.h5"));
  const std::vector<float> zeros(100000);
  file.create_dataset("x", DType::f32, 100000).write<float>(0, zeros);
  file.set_attribute("/", "name", "text");
  file.close();
  {
    const H5File whole = H5File::open_to_read(path("a.h5"));
    EXPECT_TRUE(tells(message_of([&] { whole.dataset("y"); }), {"a.h5", "dataset y", "make it again"}));
    EXPECT_TRUE(tells(message_of([&] { whole.integer_attribute("/", "z"); }), {"a.h5", "attribute z"}));
    EXPECT_TRUE(tells(message_of([&] { whole.integer_attribute("/", "name"); }), {"a.h5", "not an integer"}));
  }
  std::filesystem::resize_file(path("a.h5"), 200000);
  EXPECT_TRUE(tells(message_of([&] { H5File::open_to_read(path("a.h5")); }), {"a.h5", "truncated file"}));
}

TEST_F(Hdf5, a_string_of_variable_length_is_refused_with_the_way_to_mend_it) {
  H5File::create(path("a.h5")).close();
  {
    const H5Handle file(H5Fopen(path("a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    const H5Handle space(H5Screate(H5S_SCALAR), H5Sclose), type(H5Tcopy(H5T_C_S1), H5Tclose);
    ASSERT_GE(H5Tset_size(type.id(), H5T_VARIABLE), 0);
    const H5Handle attribute(
        H5Acreate2(file.id(), "tokenizer_hash", type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    const char* text = "text";
    ASSERT_GE(H5Awrite(attribute.id(), type.id(), &text), 0);
  }
  const H5File file = H5File::open_to_read(path("a.h5"));
  EXPECT_TRUE(tells(message_of([&] { file.string_attribute("/", "tokenizer_hash"); }),
                    {"tokenizer_hash", path("a.h5"), "numpy.bytes_"}));
}

TEST_F(Hdf5, a_full_disk_is_told_wherever_it_strikes) {
  const std::vector<float> zeros(100000);
  for (const std::uint64_t room : {0u, 100u, 1000u, 3000u, 100000u, 399000u, 401000u, 402500u}) {
    bool written = false;
    std::string message;
    {
      const SmallDisk disk(room);
      message = message_of([&] {
        H5File file = H5File::create(path("full.h5"));
        file.create_dataset("x", DType::f32, zeros.size()).write<float>(0, zeros);
        for (int i = 0; i < 20; ++i) file.create_dataset("group/" + std::to_string(i), DType::f32, 1);
        file.close();
        written = true;
      });
    }
    if (!written) {
      EXPECT_TRUE(tells(message, {"full.h5", "free space"})) << room << ": " << message;
    }
    // The library is whole afterwards: another file can be written, under the same name too.
    H5File file = H5File::create(path("full.h5"));
    file.create_dataset("x", DType::f32, 1);
    file.close();
    EXPECT_EQ(H5File::open_to_read(path("full.h5")).dataset("x").length(), 1u);
  }
}

TEST_F(Hdf5, equal_contents_make_equal_bytes) {
  for (const char* name : {"a.h5", "b.h5"}) {
    H5File file = H5File::create(path(name));
    const std::vector<float> ones(10, 1.0f);
    file.create_dataset("group/x", DType::f32, 10).write<float>(0, ones);
    file.set_attribute("/", "name", "text");
    file.close();
  }
  EXPECT_EQ(hash_file(path("a.h5")), hash_file(path("b.h5")));
}

// A file that reaches for others of the machine, or for code: datasets "external", "virtual" and "plugin", and links to
// "secret" in another file.
class Hdf5ThatReachesOut : public Hdf5 {
 protected:
  void SetUp() override {
    Hdf5::SetUp();
    {
      H5File other = H5File::create(path("other.h5"));
      const std::vector<std::uint16_t> tokens = {1, 2, 3, 4};
      other.create_dataset("secret", DType::u16, 4).write<std::uint16_t>(0, tokens);
      other.create_dataset("group/secret", DType::u16, 4);
      other.close();
      H5File file = H5File::create(path("a.h5"));
      file.create_dataset("plain", DType::u16, 4).write<std::uint16_t>(0, tokens);
      file.close();
    }
    const H5Handle file(H5Fopen(path("a.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    ASSERT_TRUE(file);
    const std::string other = path("other.h5");
    ASSERT_GE(H5Lcreate_external(other.c_str(), "/secret", file.id(), "linked", H5P_DEFAULT, H5P_DEFAULT), 0);
    ASSERT_GE(H5Lcreate_external(other.c_str(), "/group", file.id(), "folder", H5P_DEFAULT, H5P_DEFAULT), 0);
    ASSERT_GE(H5Lcreate_soft("/linked", file.id(), "soft", H5P_DEFAULT, H5P_DEFAULT), 0);
    const hsize_t length = 4;
    const H5Handle space(H5Screate_simple(1, &length, nullptr), H5Sclose);
    const auto add = [&](const char* name, const auto& describe) {
      const H5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      ASSERT_GE(describe(creation.id()), 0);
      const H5Handle made(
          H5Dcreate2(file.id(), name, H5T_STD_U16LE, space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT),
          H5Dclose);
      ASSERT_TRUE(made) << name;
    };
    add("external", [&](hid_t c) { return H5Pset_external(c, other.c_str(), 0, 8); });
    add("virtual",
        [&](hid_t c) { return H5Pset_virtual(c, space.id(), other.c_str(), "secret", space.id()); });
    const auto packed = [&](hid_t c) {
      // Any id beyond those of the library; optional, so that writing does not ask for it.
      return H5Pset_chunk(c, 1, &length) < 0 ? -1 : H5Pset_filter(c, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr);
    };
    add("plugin", packed);
  }
};

TEST_F(Hdf5ThatReachesOut, is_refused_by_name_and_nothing_else_is_opened) {
  const H5File file = H5File::open_to_read(path("a.h5"));
  EXPECT_EQ(file.dataset("plain").length(), 4u);
  std::filesystem::remove(path("other.h5"));  // whoever looks for it tells of another fault
  for (const char* name : {"linked", "soft", "folder/secret", "external", "virtual", "plugin"})
    EXPECT_TRUE(tells(message_of([&] { file.dataset(name); }),
                      {"a.h5", "must hold all that it tells", "make it again"}))
        << name << ": " << message_of([&] { file.dataset(name); });
}

}  // namespace
}  // namespace muster
