#include "core/hdf5.hpp"

#include <algorithm>
#include <hdf5.h>
#include <mutex>

#include "core/error.hpp"
#include "core/file.hpp"

namespace muster {
namespace {

constexpr std::size_t most_attribute_bytes = 65536;

static_assert(std::is_same_v<hid_t, std::int64_t> && std::is_same_v<herr_t, int>);

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

// Held during every call of the library. The library prints its errors by itself unless told otherwise, in
// each thread anew. Its own clean-up at exit is left out: it crashes on a file that a full disk kept from
// being closed, and there is nothing to clean up, since every handle here closes itself.
class Library {
 public:
  Library() : lock_(library_mutex()) {
    static const bool no_cleanup = H5dont_atexit() >= 0;
    static const bool no_plugins = H5PLset_loading_state(0) >= 0;  // a file would choose what code runs
    thread_local const bool quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    check(no_cleanup && no_plugins && quiet, "HDF5 refuses its settings");
  }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

// What the innermost function of the library said, on one line.
std::string reason() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
        auto& first = *static_cast<std::string*>(out);
        if (first.empty() && error->desc != nullptr) first = error->desc;
        return 0;
      },
      &text);
  H5Eclear2(H5E_DEFAULT);
  // A failed system call is told as "...errno = 28, error message = 'No space left on device', ...".
  constexpr std::string_view mark = "error message = '";
  if (const auto at = text.find(mark); at != std::string::npos) {
    text.erase(0, at + mark.size());
    text.erase(std::min(text.size(), text.find('\'')));
  }
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "HDF5 gives no reason" : text;
}

[[noreturn]] void fail_to_read(const std::string& what) {
  throw UserError("cannot read {}: {}: restore it from a copy or make it again", what, reason());
}

[[noreturn]] void fail_to_write(const std::string& what) {
  throw UserError("cannot write {}: {}: free space on that disk or choose another folder", what, reason());
}

hid_t native_type(DType type) {
  switch (type) {
    case DType::f32:
      return H5T_NATIVE_FLOAT;
    case DType::f64:
      return H5T_NATIVE_DOUBLE;
    case DType::u8:
      return H5T_NATIVE_UINT8;
    case DType::u16:
      return H5T_NATIVE_UINT16;
    case DType::u32:
      return H5T_NATIVE_UINT32;
    case DType::i32:
      return H5T_NATIVE_INT32;
    case DType::i64:
      return H5T_NATIVE_INT64;
    default:
      throw Defect("a type that HDF5 files of this program do not hold");
  }
}

// The type of which the stored one is a copy, in whatever byte order.
std::optional<DType> known_type(hid_t stored) {
  const std::size_t size = H5Tget_size(stored);
  const H5T_class_t kind = H5Tget_class(stored);
  if (kind == H5T_FLOAT)
    return size == 4 ? std::optional(DType::f32) : size == 8 ? std::optional(DType::f64) : std::nullopt;
  if (kind != H5T_INTEGER) return std::nullopt;
  const bool is_signed = H5Tget_sign(stored) == H5T_SGN_2;
  for (const DType type : {DType::u8, DType::u16, DType::u32, DType::i32, DType::i64})
    if (size_of(type) == size && is_signed == (type == DType::i32 || type == DType::i64)) return type;
  return std::nullopt;
}

std::string label_of(const std::string& path, const std::string& name) {
  return fmt::format("dataset {} of {}", name, path);
}

UserError lies_elsewhere(const std::string& what, std::string_view how) {
  return UserError("{} {}: a file that is read must hold all that it tells: make it again", what, how);
}

// What another file of the machine would be read for, or run.
void refuse_what_lies_elsewhere(hid_t creation, const std::string& label) {
  if (H5Pget_layout(creation) == H5D_VIRTUAL) throw lies_elsewhere(label, "is a view of other files");
  if (H5Pget_layout(creation) == H5D_CONTIGUOUS && H5Pget_external_count(creation) != 0)
    throw lies_elsewhere(label, "has its values in another file");
  const int filters = H5Pget_nfilters(creation);
  for (int i = 0; i < filters; ++i) {
    std::size_t no_values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(creation, static_cast<unsigned>(i), nullptr, &no_values, nullptr, 0, nullptr, nullptr);
    if (filter < 0 || filter >= H5Z_FILTER_RESERVED)
      throw lies_elsewhere(label, "is packed by a filter that a plugin would have to undo");
  }
}

// The space of a dataset with [offset, offset + count) selected, and a space of `count` for memory.
struct Selection {
  H5Handle file, memory;
};

Selection select(hid_t dataset, std::uint64_t offset, std::uint64_t count) {
  const hsize_t start = offset, length = count;
  Selection selection{H5Handle(H5Dget_space(dataset), H5Sclose),
                      H5Handle(H5Screate_simple(1, &length, nullptr), H5Sclose)};
  check(selection.file && selection.memory &&
            H5Sselect_hyperslab(selection.file.id(), H5S_SELECT_SET, &start, nullptr, &length, nullptr) >= 0,
        "HDF5 refuses a selection");
  return selection;
}

H5Handle file_access() {
  H5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check(access && H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG) >= 0 &&
            H5Pset_file_locking(access.id(), false, true) >= 0,
        "HDF5 refuses a property list");
  return access;
}

}  // namespace

H5Handle::~H5Handle() { close(); }

int H5Handle::close() {
  if (id_ < 0) return 0;
  const Library library;
  return closer_(std::exchange(id_, -1));
}

void H5Dataset::read_as(DType type, std::uint64_t offset, std::uint64_t count, void* values) const {
  check(offset <= length_ && count <= length_ - offset, "read past the end of a dataset");
  if (count == 0) return;
  const Library library;
  const Selection selection = select(handle_.id(), offset, count);
  if (H5Dread(handle_.id(), native_type(type), selection.memory.id(), selection.file.id(), H5P_DEFAULT,
              values) < 0)
    fail_to_read(label_);
}

void H5Dataset::write_as(DType type, std::uint64_t offset, std::uint64_t count, const void* values) {
  check(offset <= length_ && count <= length_ - offset, "write past the end of a dataset");
  if (count == 0) return;
  const Library library;
  const Selection selection = select(handle_.id(), offset, count);
  if (H5Dwrite(handle_.id(), native_type(type), selection.memory.id(), selection.file.id(), H5P_DEFAULT,
               values) < 0)
    fail_to_write(label_);
}

H5File H5File::open_to_read(const std::string& path) {
  File::open_to_read(path);  // says plainly that a file is missing or forbidden
  const Library library;
  H5File file;
  file.path_ = path;
  const H5Handle access = file_access();
  file.handle_ = H5Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose);
  if (!file.handle_) fail_to_read(path);
  return file;
}

H5File H5File::create(const std::string& path) {
  File::create(path);
  const Library library;
  H5File file;
  file.path_ = path;
  const H5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  check(creation && H5Pset_obj_track_times(creation.id(), false) >= 0, "HDF5 refuses a property list");
  const H5Handle access = file_access();
  file.handle_ = H5Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()), H5Fclose);
  if (!file.handle_) fail_to_write(path);
  return file;
}

std::vector<std::string> H5File::datasets(const std::string& group) const {
  const Library library;
  const H5Handle root(H5Gopen2(handle_.id(), group.c_str(), H5P_DEFAULT), H5Gclose);
  if (!root) fail_to_read(fmt::format("group {} of {}", group, path_));
  std::vector<std::string> names;
  const herr_t status = H5Ovisit2(
      root.id(), H5_INDEX_NAME, H5_ITER_INC,
      [](hid_t, const char* name, const H5O_info_t* info, void* out) -> herr_t {
        if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
        return 0;
      },
      &names, H5O_INFO_BASIC);
  if (status < 0) fail_to_read(path_);
  std::string prefix = group;
  while (prefix.starts_with('/')) prefix.erase(0, 1);
  if (!prefix.empty() && !prefix.ends_with('/')) prefix += '/';
  for (std::string& name : names) name.insert(0, prefix);
  std::sort(names.begin(), names.end());
  return names;
}

bool H5File::contains(const std::string& name) const {
  const Library library;
  // A link is asked for step by step: asking for "a/b" where there is no "a" is an error to HDF5, and where "a" is a link
  // to another file that would be opened.
  for (std::size_t end = name.find('/', 1); true; end = name.find('/', end + 1)) {
    const std::string part = name.substr(0, end);
    if (H5Lexists(handle_.id(), part.c_str(), H5P_DEFAULT) <= 0) return false;
    H5L_info_t link{};
    if (H5Lget_info(handle_.id(), part.c_str(), &link, H5P_DEFAULT) < 0) fail_to_read(path_);
    if (link.type != H5L_TYPE_HARD) throw lies_elsewhere(label_of(path_, part), "is a link");
    if (end == std::string::npos) return true;
  }
}

H5Dataset H5File::dataset(const std::string& name) const {
  const Library library;
  H5Dataset dataset;
  dataset.label_ = label_of(path_, name);
  if (!contains(name))
    throw UserError("{} is missing: restore the file from a copy or make it again", dataset.label_);
  dataset.handle_ = H5Handle(H5Dopen2(handle_.id(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset.handle_) fail_to_read(dataset.label_);
  const hid_t id = dataset.handle_.id();
  const H5Handle creation(H5Dget_create_plist(id), H5Pclose);
  if (!creation) fail_to_read(dataset.label_);
  refuse_what_lies_elsewhere(creation.id(), dataset.label_);  // before the library looks for its extent there
  const H5Handle space(H5Dget_space(id), H5Sclose), stored(H5Dget_type(id), H5Tclose);
  if (!space || !stored) fail_to_read(dataset.label_);
  const std::optional<DType> type = known_type(stored.id());
  if (H5Sget_simple_extent_ndims(space.id()) != 1 || !type)
    throw UserError("{} is not a list of numbers: make the file again", dataset.label_);
  dataset.type_ = *type;
  dataset.length_ = static_cast<std::uint64_t>(H5Sget_simple_extent_npoints(space.id()));
  // The address is undefined for chunked, external and empty datasets. (Filters need chunks.)
  const haddr_t address = H5Dget_offset(id);
  if (address != HADDR_UNDEF && H5Pget_layout(creation.id()) == H5D_CONTIGUOUS &&
      H5Tequal(stored.id(), native_type(*type)) > 0)
    dataset.file_offset_ = address;
  return dataset;
}

H5Dataset H5File::create_dataset(const std::string& name, DType type, std::uint64_t length) {
  const Library library;
  H5Dataset dataset;
  dataset.label_ = label_of(path_, name);
  dataset.length_ = length;
  dataset.type_ = type;
  const hsize_t extent = length;
  const H5Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const H5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose),
      creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  check(space && links && creation && H5Pset_create_intermediate_group(links.id(), 1) >= 0 &&
            H5Pset_obj_track_times(creation.id(), false) >= 0 &&
            H5Pset_alloc_time(creation.id(), H5D_ALLOC_TIME_EARLY) >= 0 &&
            H5Pset_fill_time(creation.id(), H5D_FILL_TIME_NEVER) >= 0,
        "HDF5 refuses a property list");
  dataset.handle_ = H5Handle(H5Dcreate2(handle_.id(), name.c_str(), native_type(type), space.id(), links.id(),
                                        creation.id(), H5P_DEFAULT),
                             H5Dclose);
  if (!dataset.handle_) fail_to_write(dataset.label_);
  if (const haddr_t address = H5Dget_offset(dataset.handle_.id()); address != HADDR_UNDEF)
    dataset.file_offset_ = address;
  return dataset;
}

void H5File::set_attribute(const std::string& object, const std::string& name, std::int64_t value) {
  const Library library;
  const H5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const H5Handle made(H5Acreate_by_name(handle_.id(), object.c_str(), name.c_str(), H5T_NATIVE_INT64,
                                        space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
  if (!made || H5Awrite(made.id(), H5T_NATIVE_INT64, &value) < 0)
    fail_to_write(fmt::format("attribute {} of {} of {}", name, object, path_));
}

void H5File::set_attribute(const std::string& object, const std::string& name, std::string_view value) {
  const Library library;
  const H5Handle space(H5Screate(H5S_SCALAR), H5Sclose), type(H5Tcopy(H5T_C_S1), H5Tclose);
  const std::string text(value);  // with its final NUL, which HDF5 asks for
  check(space && H5Tset_size(type.id(), text.size() + 1) >= 0 && H5Tset_cset(type.id(), H5T_CSET_UTF8) >= 0,
        "HDF5 refuses a string type");
  const H5Handle made(H5Acreate_by_name(handle_.id(), object.c_str(), name.c_str(), type.id(), space.id(),
                                        H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
  if (!made || H5Awrite(made.id(), type.id(), text.c_str()) < 0)
    fail_to_write(fmt::format("attribute {} of {} of {}", name, object, path_));
}

void H5File::set_attribute(const std::string& object, const std::string& name,
                           std::span<const std::int64_t> values) {
  const Library library;
  const hsize_t extent = values.size();
  const H5Handle space(H5Screate_simple(1, &extent, nullptr), H5Sclose);
  const H5Handle made(H5Acreate_by_name(handle_.id(), object.c_str(), name.c_str(), H5T_NATIVE_INT64,
                                        space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
  if (!made || H5Awrite(made.id(), H5T_NATIVE_INT64, values.data()) < 0)
    fail_to_write(fmt::format("attribute {} of {} of {}", name, object, path_));
}

H5Handle H5File::attribute(const std::string& object, const std::string& name) const {
  H5Handle found(H5Aopen_by_name(handle_.id(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                 H5Aclose);
  if (!found)
    throw UserError("attribute {} of {} of {} is missing: restore the file from a copy or make it again",
                    name, object, path_);
  return found;
}

std::int64_t H5File::integer_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  const H5Handle found = attribute(object, name);
  const H5Handle space(H5Aget_space(found.id()), H5Sclose), type(H5Aget_type(found.id()), H5Tclose);
  std::int64_t value = 0;
  if (H5Sget_simple_extent_npoints(space.id()) != 1 || H5Tget_class(type.id()) != H5T_INTEGER ||
      H5Aread(found.id(), H5T_NATIVE_INT64, &value) < 0)
    throw UserError("attribute {} of {} of {} is not an integer: make the file again", name, object, path_);
  return value;
}

std::string H5File::string_attribute(const std::string& object, const std::string& name) const {
  const Library library;
  const H5Handle found = attribute(object, name);
  const H5Handle space(H5Aget_space(found.id()), H5Sclose), type(H5Aget_type(found.id()), H5Tclose);
  const auto refuse = [&] {
    return UserError("attribute {} of {} of {} is not a string: make the file again", name, object, path_);
  };
  if (H5Sget_simple_extent_npoints(space.id()) != 1 || H5Tget_class(type.id()) != H5T_STRING) throw refuse();
  // Of text of variable length a damaged file leads the library astray: it copies from wherever that says, and ends by a
  // signal.
  if (H5Tis_variable_str(type.id()) != 0)
    throw UserError(
        "attribute {} of {} of {} is a string of variable length: write it with a fixed one (in h5py as "
        "numpy.bytes_)",
        name, object, path_);
  if (H5Tget_size(type.id()) > most_attribute_bytes) throw refuse();
  std::string value(H5Tget_size(type.id()), '\0');
  if (H5Aread(found.id(), type.id(), value.data()) < 0) throw refuse();
  value.erase(std::min(value.size(), value.find('\0')));
  return value;
}

void H5File::close() {
  const Library library;
  if (handle_.close() < 0) fail_to_write(path_);
}

}  // namespace muster
