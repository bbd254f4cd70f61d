#include "userspace/server/reshape.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "userspace/base/strings.h"

namespace pyrometer::server {
namespace {

using profile::Profile;
using profile::StackId;

profile::FrameId SyntheticFrame(profile::Dictionary* dictionary, std::string_view name) {
  const profile::FunctionId function = dictionary->InternFunction({.name = dictionary->InternString(name)});
  return dictionary->InternFrame({.kind = profile::FrameKind::kSynthetic, .lines = {{.function = function}}});
}

}  // namespace

Profile RootAtLabels(const Profile& profile, const std::vector<std::string>& labels) {
  Profile rooted = profile::CopyHeader(profile);
  profile::DictionaryMapper mapper(profile.dictionary, &rooted.dictionary);
  std::vector<StackId> root_of_labels(profile.dictionary.label_set_count(), 0);
  std::vector<bool> have_root(profile.dictionary.label_set_count(), false);
  std::unordered_map<uint64_t, StackId> moved;  // root there << 32 | stack here -> stack there
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const Profile::Sample& sample = profile.sample(i);
    if (!have_root[sample.labels]) {
      StackId root = profile::kEmptyStack;
      for (const std::string& label : labels) {
        const std::string_view value = profile.dictionary.label_set(sample.labels).Get(label);
        root = rooted.dictionary.InternStack(
            root, SyntheticFrame(&rooted.dictionary, value.empty() ? "(no " + label + ")" : std::string(value)));
      }
      root_of_labels[sample.labels] = root;
      have_root[sample.labels] = true;
    }
    const StackId root = root_of_labels[sample.labels];
    const auto key = [root](StackId stack) { return uint64_t{root} << 32 | stack; };
    std::vector<StackId> pending;
    StackId at = sample.stack;
    for (; at != profile::kEmptyStack && !moved.contains(key(at)); at = profile.dictionary.stack(at).parent) {
      pending.push_back(at);
    }
    StackId stack = at == profile::kEmptyStack ? root : moved.at(key(at));
    for (size_t p = pending.size(); p > 0; --p) {
      stack = rooted.dictionary.InternStack(stack, mapper.Frame(profile.dictionary.stack(pending[p - 1]).frame));
      moved[key(pending[p - 1])] = stack;
    }
    rooted.Add(mapper.LabelSet(sample.labels), stack, profile.values(i));
  }
  return rooted;
}

Profile LimitNodes(Profile profile, size_t max_nodes) {
  const size_t count = profile.dictionary.stack_count();
  if (count <= max_nodes || profile.value_types.empty()) return profile;
  // Absolute values: differences may be negative and still matter.
  std::vector<uint64_t> totals(count, 0);
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const int64_t value = profile.values(i)[profile.default_value];
    totals[profile.sample(i).stack] += value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  }
  for (size_t id = count; id-- > 1;) totals[profile.dictionary.stack(static_cast<StackId>(id)).parent] += totals[id];
  std::vector<StackId> order(count);
  std::iota(order.begin(), order.end(), 0);
  // Parents are not smaller than their children and come first among equals: what is kept is a tree.
  std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(max_nodes), order.end(),
                   [&](StackId a, StackId b) { return std::pair(totals[b], a) < std::pair(totals[a], b); });
  std::vector<bool> kept(count, false);
  for (size_t i = 0; i < max_nodes; ++i) kept[order[i]] = true;
  kept[profile::kEmptyStack] = true;

  Profile limited = profile::CopyHeader(profile);
  profile::DictionaryMapper mapper(profile.dictionary, &limited.dictionary);
  const profile::FrameId smaller = SyntheticFrame(&limited.dictionary, "(smaller)");
  for (size_t i = 0; i < profile.sample_count(); ++i) {
    const Profile::Sample& sample = profile.sample(i);
    StackId at = sample.stack;
    while (!kept[at]) at = profile.dictionary.stack(at).parent;
    StackId stack = mapper.Stack(at);
    if (at != sample.stack) stack = limited.dictionary.InternStack(stack, smaller);
    limited.Add(mapper.LabelSet(sample.labels), stack, profile.values(i));
  }
  limited.comments.push_back(
      StrFormat("shown are the largest %d of %d stack nodes; the others are summed up as "
                "(smaller)",
                max_nodes, count - 1));
  return limited;
}

}  // namespace pyrometer::server
