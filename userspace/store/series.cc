#include "userspace/store/series.h"

#include <algorithm>
#include <map>
#include <set>

#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

constexpr size_t kReadChunk = 4096;  // keys per MultiGet

void PutIdentity(const SeriesRecord& record, std::string* out) {
  PutVarint(record.type, out);
  PutVarint(record.labels.size(), out);
  for (const SeriesRecord::Label& label : record.labels) {
    PutVarint(label.name, out);
    PutVarint(label.value, out);
  }
}

std::string PostingPrefix(std::initializer_list<NameId> parts) {
  std::string prefix = "p";
  for (const NameId part : parts) PutBigEndian32(part, &prefix);
  return prefix;
}

// The first key after every key that starts with `prefix`.
std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

}  // namespace

std::string SeriesIdentity(const SeriesRecord& record) {
  std::string out;
  PutIdentity(record, &out);
  return out;
}

std::string EncodeSeries(const SeriesRecord& record) {
  std::string out;
  PutVarint(record.trie, &out);
  PutIdentity(record, &out);
  return out;
}

StatusOr<SeriesRecord> DecodeSeries(std::string_view bytes) {
  Decoder in(bytes);
  SeriesRecord record;
  record.trie = in.Varint32();
  record.type = in.Varint32();
  record.labels.resize(in.Count(2));
  for (SeriesRecord::Label& label : record.labels) {
    label.name = in.Varint32();
    label.value = in.Varint32();
  }
  if (!in.ok() || !in.done() || record.trie == 0 || record.type == 0) return DataLossError("damaged series record");
  return record;
}

std::string EncodePosting(const Posting& posting) {
  return PostingPrefix({posting.type, posting.name, posting.value, posting.series});
}

StatusOr<Posting> DecodePosting(std::string_view bytes) {
  Decoder in(bytes);
  if (in.Byte() != 'p') return DataLossError("damaged posting");
  Posting posting;
  posting.type = in.BigEndian32();
  posting.name = in.BigEndian32();
  posting.value = in.BigEndian32();
  posting.series = in.BigEndian32();
  if (!in.ok() || !in.done()) return DataLossError("damaged posting");
  return posting;
}

std::string SeriesRecordKey(SeriesId id) {
  std::string key = "r";
  PutBigEndian32(id, &key);
  return key;
}
std::string SeriesIndexKey(std::string_view identity) { return "k" + std::string(identity); }

std::string_view TrieName(const profile::LabelSet& labels) {
  const std::string_view service = labels.Get(profile::kLabelService);
  return service.empty() ? labels.Get(profile::kLabelContainerName) : service;
}

StatusOr<SeriesWriter::Found> SeriesWriter::Lookup(const std::string& identity) {
  if (const Found* found = ids_.Find(identity)) return *found;
  std::string value;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kSeries, SeriesIndexKey(identity), &value));
  if (!there) return Found{};
  Decoder in(value);
  Found found;
  found.id = in.Varint32();
  found.trie = in.Varint32();
  if (!in.ok() || !in.done() || found.id == 0 || found.trie == 0) return DataLossError("damaged series index");
  ids_.Insert(identity, found, identity.size() + sizeof(std::string));
  return found;
}

StatusOr<SeriesWriter::Found> SeriesWriter::Find(const profile::SeriesKey& key) {
  SeriesRecord record;
  ASSIGN_OR_RETURN(record.type, names_.Find(key.type));
  if (record.type == 0) return Found{};
  for (const profile::Label& label : key.labels.labels()) {
    ASSIGN_OR_RETURN(const NameId name, names_.Find(label.name));
    ASSIGN_OR_RETURN(const NameId value, names_.Find(label.value));
    if (name == 0 || value == 0) return Found{};
    record.labels.push_back({name, value});
  }
  return Lookup(SeriesIdentity(record));
}

StatusOr<TrieId> SeriesWriter::TrieOf(std::string_view name, rocksdb::WriteBatch* batch) {
  if (const TrieId* id = tries_.Find(name)) return *id;
  const std::string key = "N" + std::string(name);
  std::string value;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kTries, key, &value));
  TrieId id = 0;
  if (there) {
    Decoder in(value);
    id = in.Varint32();
    if (!in.ok() || !in.done() || id == 0) return DataLossError("damaged trie index");
  } else {
    id = next_trie++;
    PutVarint(id, &value);
    RETURN_IF_ERROR(database_.FromRocks(batch->Put(database_.family(Family::kTries), key, value), "writing"));
  }
  tries_.Insert(std::string(name), id, name.size() + sizeof(std::string));
  return id;
}

StatusOr<SeriesWriter::Found> SeriesWriter::FindOrAdd(const profile::SeriesKey& key, rocksdb::WriteBatch* batch) {
  SeriesRecord record;
  ASSIGN_OR_RETURN(record.type, names_.Intern(key.type, batch));
  for (const profile::Label& label : key.labels.labels()) {
    ASSIGN_OR_RETURN(const NameId name, names_.Intern(label.name, batch));
    ASSIGN_OR_RETURN(const NameId value, names_.Intern(label.value, batch));
    record.labels.push_back({name, value});
  }
  const std::string identity = SeriesIdentity(record);
  ASSIGN_OR_RETURN(Found found, Lookup(identity));
  if (found.id != 0) return found;

  ASSIGN_OR_RETURN(record.trie, TrieOf(TrieName(key.labels), batch));
  found = {.id = next_series++, .trie = record.trie};
  std::string value;
  PutVarint(found.id, &value);
  PutVarint(found.trie, &value);
  rocksdb::ColumnFamilyHandle* family = database_.family(Family::kSeries);
  const auto put = [&](const std::string& at, const std::string& what) {
    return database_.FromRocks(batch->Put(family, at, what), "writing");
  };
  RETURN_IF_ERROR(put(SeriesIndexKey(identity), value));
  RETURN_IF_ERROR(put(SeriesRecordKey(found.id), EncodeSeries(record)));
  RETURN_IF_ERROR(put(EncodePosting({.type = record.type, .series = found.id}), ""));
  for (const SeriesRecord::Label& label : record.labels) {
    RETURN_IF_ERROR(put(EncodePosting({record.type, label.name, label.value, found.id}), ""));
  }
  ids_.Insert(identity, found, identity.size() + sizeof(std::string));
  ++live;
  return found;
}

Status SeriesWriter::Remove(SeriesId id, rocksdb::WriteBatch* batch) {
  std::string bytes;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kSeries, SeriesRecordKey(id), &bytes));
  if (!there) return OkStatus();
  ASSIGN_OR_RETURN(const SeriesRecord record, DecodeSeries(bytes));
  const std::string identity = SeriesIdentity(record);
  rocksdb::ColumnFamilyHandle* family = database_.family(Family::kSeries);
  const auto remove = [&](const std::string& key) {
    return database_.FromRocks(batch->Delete(family, key), "writing");
  };
  RETURN_IF_ERROR(remove(SeriesIndexKey(identity)));
  RETURN_IF_ERROR(remove(SeriesRecordKey(id)));
  RETURN_IF_ERROR(remove(EncodePosting({.type = record.type, .series = id})));
  for (const SeriesRecord::Label& label : record.labels) {
    RETURN_IF_ERROR(remove(EncodePosting({record.type, label.name, label.value, id})));
  }
  ids_.Erase(identity);
  --live;
  return OkStatus();
}

void SeriesWriter::Forget() {
  ids_.Clear();
  tries_.Clear();
}

void SeriesWriter::Trim() {
  ids_.Trim();
  tries_.Trim();
}

StatusOr<std::vector<NameId>> SeriesReader::Distinct(const std::string& prefix) {
  std::vector<NameId> ids;
  const std::string end = PrefixEnd(prefix);
  const std::unique_ptr<rocksdb::Iterator> it = database_.NewIterator(Family::kSeries);
  // One seek per distinct id, however many series share it.
  for (it->Seek(prefix); it->Valid() && ToView(it->key()) < end;) {
    Decoder in(ToView(it->key()).substr(prefix.size()));
    const NameId id = in.BigEndian32();
    if (!in.ok()) return DataLossError("damaged posting");
    ids.push_back(id);
    std::string next = prefix;
    PutBigEndian32(id, &next);
    it->Seek(PrefixEnd(next));
  }
  RETURN_IF_ERROR(database_.FromRocks(it->status(), "reading"));
  return ids;
}

StatusOr<std::vector<SeriesId>> SeriesReader::Postings(NameId type, NameId name, NameId value) {
  std::vector<SeriesId> ids;
  const std::string prefix = PostingPrefix({type, name, value});
  RETURN_IF_ERROR(database_.Scan(Family::kSeries, prefix, PrefixEnd(prefix),
                                 [&](std::string_view key, std::string_view) -> StatusOr<bool> {
                                   ASSIGN_OR_RETURN(const Posting posting, DecodePosting(key));
                                   ids.push_back(posting.series);
                                   return true;
                                 }));
  return ids;
}

StatusOr<NameId> SeriesReader::NameOf(std::string_view text) {
  if (text.empty()) return NameId{0};
  std::string value;
  ASSIGN_OR_RETURN(const bool found, database_.Get(Family::kNames, NameIndexKey(text), &value));
  if (!found) return NameId{0};
  Decoder in(value);
  const NameId id = in.Varint32();
  if (!in.ok() || !in.done()) return DataLossError("damaged dictionary: string index");
  return id;
}

StatusOr<std::vector<NameId>> SeriesReader::TypesOf(const SeriesFilter& filter) {
  if (filter.type.empty()) return Distinct("p");
  ASSIGN_OR_RETURN(const NameId type, NameOf(filter.type));
  if (type == 0) return std::vector<NameId>();
  return std::vector<NameId>{type};
}

StatusOr<std::vector<SeriesId>> SeriesReader::Candidates(NameId type, const std::vector<LabelMatcher>& matchers) {
  // Matchers that a series without the label cannot meet narrow the search through postings; the rest is checked on
  // the loaded series by the caller.
  bool narrowed = false;
  std::vector<SeriesId> result;
  const auto narrow = [&](std::vector<SeriesId> ids) {
    std::sort(ids.begin(), ids.end());
    if (!narrowed) {
      result = std::move(ids);
      narrowed = true;
      return;
    }
    std::vector<SeriesId> both;
    std::set_intersection(result.begin(), result.end(), ids.begin(), ids.end(), std::back_inserter(both));
    result = std::move(both);
  };
  for (const LabelMatcher& matcher : matchers) {
    if (matcher.Matches("") || matcher.op() != MatchOp::kEqual) continue;
    ASSIGN_OR_RETURN(const NameId name, NameOf(matcher.name()));
    ASSIGN_OR_RETURN(const NameId value, NameOf(matcher.value()));
    if (name == 0 || value == 0) return std::vector<SeriesId>();
    ASSIGN_OR_RETURN(std::vector<SeriesId> ids, Postings(type, name, value));
    narrow(std::move(ids));
    if (result.empty()) return result;
  }
  for (const LabelMatcher& matcher : matchers) {
    if (matcher.Matches("") || matcher.op() != MatchOp::kRegex) continue;
    ASSIGN_OR_RETURN(const NameId name, NameOf(matcher.name()));
    if (name == 0) return std::vector<SeriesId>();
    ASSIGN_OR_RETURN(const std::vector<NameId> values, Distinct(PostingPrefix({type, name})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(values));
    std::vector<SeriesId> ids;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!matcher.Matches(texts[i])) continue;
      ASSIGN_OR_RETURN(const std::vector<SeriesId> more, Postings(type, name, values[i]));
      ids.insert(ids.end(), more.begin(), more.end());
    }
    narrow(std::move(ids));
    if (result.empty()) return result;
  }
  if (narrowed) return result;
  return Postings(type, 0, 0);
}

StatusOr<std::vector<std::shared_ptr<const Series>>> SeriesReader::Load(const std::vector<SeriesId>& ids) {
  std::vector<std::shared_ptr<const Series>> result(ids.size());
  std::vector<size_t> absent;
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (const auto* cached = cache_.Find(ids[i])) {
        result[i] = *cached;
      } else {
        absent.push_back(i);
      }
    }
  }
  std::vector<std::string> keys, values;
  std::vector<bool> found;
  for (size_t begin = 0; begin < absent.size(); begin += kReadChunk) {
    const size_t end = std::min(absent.size(), begin + kReadChunk);
    keys.clear();
    for (size_t i = begin; i < end; ++i) keys.push_back(SeriesRecordKey(ids[absent[i]]));
    RETURN_IF_ERROR(database_.MultiGet(Family::kSeries, keys, &values, &found));
    std::vector<SeriesRecord> records(end - begin);
    std::vector<NameId> name_ids;
    for (size_t i = 0; i < records.size(); ++i) {
      if (!found[i]) continue;
      ASSIGN_OR_RETURN(records[i], DecodeSeries(values[i]));
      name_ids.push_back(records[i].type);
      for (const SeriesRecord::Label& label : records[i].labels) {
        name_ids.push_back(label.name);
        name_ids.push_back(label.value);
      }
    }
    std::sort(name_ids.begin(), name_ids.end());
    name_ids.erase(std::unique(name_ids.begin(), name_ids.end()), name_ids.end());
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(name_ids));
    const auto text = [&](NameId id) -> const std::string& {
      return texts[static_cast<size_t>(std::lower_bound(name_ids.begin(), name_ids.end(), id) - name_ids.begin())];
    };
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < records.size(); ++i) {
      if (!found[i]) continue;
      auto series = std::make_shared<Series>();
      series->id = ids[absent[begin + i]];
      series->trie = records[i].trie;
      series->type = text(records[i].type);
      std::vector<profile::Label> labels;
      size_t bytes = sizeof(Series) + 32 + series->type.size();
      for (const SeriesRecord::Label& label : records[i].labels) {
        labels.push_back({text(label.name), text(label.value)});
        bytes += sizeof(profile::Label) + labels.back().name.size() + labels.back().value.size();
      }
      ASSIGN_OR_RETURN(series->labels, profile::LabelSet::Make(std::move(labels)));
      result[absent[begin + i]] = series;
      cache_.Insert(series->id, series, bytes);
    }
    cache_.Trim();
  }
  return result;
}

StatusOr<std::vector<Series>> SeriesReader::Find(const SeriesFilter& filter) {
  std::vector<Series> result;
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<SeriesId> ids, Candidates(type, filter.matchers));
    ASSIGN_OR_RETURN(const auto loaded, Load(ids));
    for (const std::shared_ptr<const Series>& series : loaded) {
      if (series == nullptr) continue;
      const bool all = std::all_of(filter.matchers.begin(), filter.matchers.end(),
                                   [&](const LabelMatcher& matcher) { return matcher.Matches(series->labels); });
      if (all) result.push_back(*series);
    }
  }
  std::sort(result.begin(), result.end(), [](const Series& a, const Series& b) { return a.id < b.id; });
  return result;
}

StatusOr<std::vector<std::string>> SeriesReader::Types() {
  ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct("p"));
  ASSIGN_OR_RETURN(std::vector<std::string> names, names_.Names(ids));
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<std::vector<std::string>> SeriesReader::LabelNames(const SeriesFilter& filter) {
  std::set<std::string> names;
  if (!filter.matchers.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Series> all, Find(filter));
    for (const Series& series : all) {
      for (const profile::Label& label : series.labels.labels()) names.insert(label.name);
    }
    return std::vector<std::string>(names.begin(), names.end());
  }
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct(PostingPrefix({type})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(ids));
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != 0) names.insert(texts[i]);
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

StatusOr<std::vector<std::string>> SeriesReader::LabelValues(std::string_view name, const SeriesFilter& filter) {
  std::set<std::string> values;
  if (!filter.matchers.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Series> all, Find(filter));
    for (const Series& series : all) {
      if (const std::string_view value = series.labels.Get(name); !value.empty()) values.emplace(value);
    }
    return std::vector<std::string>(values.begin(), values.end());
  }
  ASSIGN_OR_RETURN(const NameId name_id, NameOf(name));
  if (name_id == 0) return std::vector<std::string>();
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct(PostingPrefix({type, name_id})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(ids));
    values.insert(texts.begin(), texts.end());
  }
  return std::vector<std::string>(values.begin(), values.end());
}

StatusOr<std::vector<SeriesId>> SeriesReader::AllIds() {
  std::vector<SeriesId> ids;
  RETURN_IF_ERROR(
      database_.Scan(Family::kSeries, "r", "s", [&](std::string_view key, std::string_view) -> StatusOr<bool> {
        Decoder in(key.substr(1));
        ids.push_back(in.BigEndian32());
        if (!in.ok() || !in.done()) return DataLossError("damaged series key");
        return true;
      }));
  return ids;
}

void SeriesReader::Erase(SeriesId id) {
  const std::lock_guard lock(mutex_);
  cache_.Erase(id);
}

uint64_t SeriesReader::bytes() const {
  const std::lock_guard lock(mutex_);
  return cache_.bytes();
}

}  // namespace pyrometer::store
