#include "model/families/family.hpp"

#include <utility>

#include "core/error.hpp"
#include "model/graph/differentiate.hpp"

namespace muster {

Graph Model::training(const MicroBatchShape& shape, Precision precision, Recompute recompute) const {
  Builder b(space_, precision, true);
  const ValueId loss = append_loss(b, shape);
  b.mark_result(loss, "loss");
  Graph graph = std::move(b).finish();
  differentiate(graph, loss, recompute);
  return graph;
}

Graph Model::evaluation(const MicroBatchShape& shape, Precision precision) const {
  Builder b(space_, precision, false);
  b.mark_result(append_loss(b, shape), "loss");
  return std::move(b).finish();
}

std::vector<Field> Model::fields(const MicroBatchShape& shape) const {
  std::vector<Field> fields;
  for (const Value& value : evaluation(shape, Precision::f32).values)
    if (value.role == Role::input) fields.push_back({value.name, value.type.dtype, value.type.elements()});
  return fields;
}

Graph Model::generation(const MicroBatchShape& shape, Precision precision, std::int64_t cache_length) const {
  Builder b(space_, precision, false);
  b.mark_result(append_logits(b, shape, cache_length), "logits");
  return std::move(b).finish();
}

ValueId Model::append_logits(Builder&, const MicroBatchShape&, std::int64_t) const {
  throw Defect("this family writes no text");
}

void check_heads_divide_width(const ModelConfig& model) {
  if (model.width % model.heads != 0)
    throw UserError("model.heads = {} does not divide model.width = {}; choose a divisor", model.heads,
                    model.width);
}

std::unique_ptr<Model> make_model(const ModelConfig& config) {
  std::unique_ptr<Model> model = family_of(config).make(config);
  const auto space = std::make_shared<ParameterSpace>();
  Builder b = Builder::declaring(space, Precision::f32, false);
  model->append_loss(b, {});
  model->space_ = space;
  return model;
}

}  // namespace muster
