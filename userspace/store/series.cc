#include "userspace/store/series.h"

#include <algorithm>
#include <map>
#include <set>

#include "userspace/store/codec.h"

namespace pyrometer::store {
namespace {

constexpr size_t kReadChunk = 4096;  // keys per MultiGet

char RecordLetter(SeriesKind kind) { return kind == SeriesKind::kSeries ? 'r' : 'g'; }
char IndexLetter(SeriesKind kind) { return kind == SeriesKind::kSeries ? 'k' : 'j'; }
char PostingLetter(SeriesKind kind) { return kind == SeriesKind::kSeries ? 'p' : 'q'; }

void PutIdentity(const SeriesRecord& record, std::string* out) {
  PutVarint(record.tenant, out);
  PutVarint(record.type, out);
  PutVarint(record.labels.size(), out);
  for (const SeriesRecord::Label& label : record.labels) {
    PutVarint(label.name, out);
    PutVarint(label.value, out);
  }
}

std::string PostingPrefix(SeriesKind kind, std::initializer_list<uint32_t> parts) {
  std::string prefix(1, PostingLetter(kind));
  for (const uint32_t part : parts) PutBigEndian32(part, &prefix);
  return prefix;
}

uint64_t CacheKey(SeriesKind kind, uint32_t id) { return static_cast<uint64_t>(kind) << 32 | id; }

// The first key after every key that starts with `prefix`.
std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) ++prefix.back();
  return prefix;
}

}  // namespace

bool IsInstanceLabel(std::string_view name) {
  return std::find(kInstanceLabels.begin(), kInstanceLabels.end(), name) != kInstanceLabels.end();
}

bool SeriesFilter::SeesGroupsWhole() const {
  return std::none_of(matchers.begin(), matchers.end(),
                      [](const LabelMatcher& matcher) { return IsInstanceLabel(matcher.name()); });
}

std::string SeriesIdentity(const SeriesRecord& record) {
  std::string out;
  PutIdentity(record, &out);
  return out;
}

std::string EncodeSeries(const SeriesRecord& record) {
  std::string out;
  PutVarint(record.trie, &out);
  PutVarint(record.group, &out);
  PutIdentity(record, &out);
  return out;
}

StatusOr<SeriesRecord> DecodeSeries(std::string_view bytes) {
  Decoder in(bytes);
  SeriesRecord record;
  record.trie = in.Varint32();
  record.group = in.Varint32();
  record.tenant = in.Varint32();
  record.type = in.Varint32();
  record.labels.resize(in.Count(2));
  for (SeriesRecord::Label& label : record.labels) {
    label.name = in.Varint32();
    label.value = in.Varint32();
  }
  if (!in.ok() || !in.done() || record.trie == 0 || record.tenant == 0 || record.type == 0) {
    return DataLossError("damaged series record");
  }
  return record;
}

std::string EncodePosting(SeriesKind kind, const Posting& posting) {
  return PostingPrefix(kind, {posting.tenant, posting.type, posting.name, posting.value, posting.id});
}

StatusOr<Posting> DecodePosting(SeriesKind kind, std::string_view bytes) {
  Decoder in(bytes);
  if (in.Byte() != static_cast<uint8_t>(PostingLetter(kind))) return DataLossError("damaged posting");
  Posting posting;
  for (uint32_t* part : {&posting.tenant, &posting.type, &posting.name, &posting.value, &posting.id}) {
    *part = in.BigEndian32();
  }
  if (!in.ok() || !in.done()) return DataLossError("damaged posting");
  return posting;
}

std::string SeriesRecordKey(SeriesKind kind, uint32_t id) {
  std::string key(1, RecordLetter(kind));
  PutBigEndian32(id, &key);
  return key;
}
std::string SeriesIndexKey(SeriesKind kind, std::string_view identity) {
  return std::string(1, IndexLetter(kind)) + std::string(identity);
}

std::string_view TrieName(const profile::LabelSet& labels) {
  const std::string_view service = labels.Get(profile::kLabelService);
  return service.empty() ? labels.Get(profile::kLabelContainerName) : service;
}

std::string TrieRecordKey(TrieId trie) {
  std::string key = "I";
  PutBigEndian32(trie, &key);
  return key;
}
std::string TrieIndexKey(TenantId tenant, std::string_view name) {
  std::string key = "N";
  PutBigEndian32(tenant, &key);
  return key + std::string(name);
}
std::string EncodeTrieRecord(const TrieRecord& record) {
  std::string out;
  PutVarint(record.tenant, &out);
  PutString(record.name, &out);
  return out;
}
StatusOr<TrieRecord> DecodeTrieRecord(std::string_view bytes) {
  Decoder in(bytes);
  TrieRecord record;
  record.tenant = in.Varint32();
  record.name = in.String();
  if (!in.ok() || !in.done() || record.tenant == 0) return DataLossError("damaged record of a service");
  return record;
}

StatusOr<SeriesWriter::Found> SeriesWriter::Lookup(SeriesKind kind, const std::string& identity) {
  if (const Found* found = IdsOf(kind).Find(identity)) return *found;
  std::string value;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kSeries, SeriesIndexKey(kind, identity), &value));
  if (!there) return Found{};
  Decoder in(value);
  Found found;
  found.id = in.Varint32();
  found.trie = in.Varint32();
  found.group = in.Varint32();
  if (!in.ok() || !in.done() || found.id == 0 || found.trie == 0) return DataLossError("damaged series index");
  IdsOf(kind).Insert(identity, found, identity.size() + sizeof(std::string));
  return found;
}

StatusOr<SeriesWriter::Found> SeriesWriter::Find(TenantId tenant, const profile::SeriesKey& key) {
  SeriesRecord record{.tenant = tenant};
  ASSIGN_OR_RETURN(record.type, names_.Find(key.type));
  if (record.type == 0) return Found{};
  for (const profile::Label& label : key.labels.labels()) {
    ASSIGN_OR_RETURN(const NameId name, names_.Find(label.name));
    ASSIGN_OR_RETURN(const NameId value, names_.Find(label.value));
    if (name == 0 || value == 0) return Found{};
    record.labels.push_back({name, value});
  }
  return Lookup(SeriesKind::kSeries, SeriesIdentity(record));
}

StatusOr<TrieId> SeriesWriter::TrieOf(TenantId tenant, std::string_view name, rocksdb::WriteBatch* batch) {
  const std::string key = TrieIndexKey(tenant, name);
  if (const TrieId* id = tries_.Find(key)) return *id;
  std::string value;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kTries, key, &value));
  TrieId id = 0;
  if (there) {
    Decoder in(value);
    id = in.Varint32();
    if (!in.ok() || !in.done() || id == 0) return DataLossError("damaged trie index");
  } else {
    return AddTrie(tenant, name, batch);
  }
  tries_.Insert(key, id, key.size() + sizeof(std::string));
  return id;
}

StatusOr<TrieId> SeriesWriter::AddTrie(TenantId tenant, std::string_view name, rocksdb::WriteBatch* batch) {
  const TrieId id = next_trie++;
  const std::string key = TrieIndexKey(tenant, name);
  std::string value;
  PutVarint(id, &value);
  rocksdb::ColumnFamilyHandle* family = database_.family(Family::kTries);
  RETURN_IF_ERROR(database_.FromRocks(batch->Put(family, key, value), "writing"));
  RETURN_IF_ERROR(database_.FromRocks(
      batch->Put(family, TrieRecordKey(id), EncodeTrieRecord({tenant, std::string(name)})), "writing"));
  tries_.Insert(key, id, key.size() + sizeof(std::string));
  return id;
}

Status SeriesWriter::TurnOver(TrieId trie, rocksdb::WriteBatch* batch, TrieId* successor) {
  *successor = 0;
  std::string value;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kTries, TrieRecordKey(trie), &value));
  if (!there) return OkStatus();
  ASSIGN_OR_RETURN(const TrieRecord record, DecodeTrieRecord(value));
  ASSIGN_OR_RETURN(const TrieId newest, TrieOf(record.tenant, record.name, batch));
  if (newest != trie) return OkStatus();
  ASSIGN_OR_RETURN(*successor, AddTrie(record.tenant, record.name, batch));
  return OkStatus();
}

Status SeriesWriter::PutAll(SeriesKind kind, const std::string& identity, const SeriesRecord& record,
                            const Found& found, rocksdb::WriteBatch* batch) {
  std::string value;
  PutVarint(found.id, &value);
  PutVarint(found.trie, &value);
  PutVarint(found.group, &value);
  rocksdb::ColumnFamilyHandle* family = database_.family(Family::kSeries);
  const auto put = [&](const std::string& at, const std::string& what) {
    return database_.FromRocks(batch->Put(family, at, what), "writing");
  };
  RETURN_IF_ERROR(put(SeriesIndexKey(kind, identity), value));
  RETURN_IF_ERROR(put(SeriesRecordKey(kind, found.id), EncodeSeries(record)));
  RETURN_IF_ERROR(
      put(EncodePosting(kind, {.tenant = record.tenant, .type = record.type, .id = found.id}), std::string()));
  for (const SeriesRecord::Label& label : record.labels) {
    RETURN_IF_ERROR(
        put(EncodePosting(kind, {record.tenant, record.type, label.name, label.value, found.id}), std::string()));
  }
  IdsOf(kind).Insert(identity, found, identity.size() + sizeof(std::string));
  return OkStatus();
}

StatusOr<SeriesWriter::Found> SeriesWriter::FindOrAdd(TenantId tenant, const profile::SeriesKey& key,
                                                      rocksdb::WriteBatch* batch, bool* added) {
  SeriesRecord record{.tenant = tenant};
  SeriesRecord group{.tenant = tenant};
  ASSIGN_OR_RETURN(record.type, names_.Intern(key.type, batch));
  group.type = record.type;
  for (const profile::Label& label : key.labels.labels()) {
    SeriesRecord::Label stored;
    ASSIGN_OR_RETURN(stored.name, names_.Intern(label.name, batch));
    ASSIGN_OR_RETURN(stored.value, names_.Intern(label.value, batch));
    record.labels.push_back(stored);
    if (!IsInstanceLabel(label.name)) group.labels.push_back(stored);
  }
  const std::string identity = SeriesIdentity(record);
  ASSIGN_OR_RETURN(Found found, Lookup(SeriesKind::kSeries, identity));
  *added = found.id == 0;
  ASSIGN_OR_RETURN(record.trie, TrieOf(tenant, TrieName(key.labels), batch));
  if (found.id != 0 && found.trie == record.trie) return found;

  group.trie = record.trie;
  const std::string group_identity = SeriesIdentity(group);
  ASSIGN_OR_RETURN(Found found_group, Lookup(SeriesKind::kGroup, group_identity));
  if (found_group.id == 0 || found_group.trie != group.trie) {
    found_group = {.id = next_group++, .trie = group.trie};
    RETURN_IF_ERROR(PutAll(SeriesKind::kGroup, group_identity, group, found_group, batch));
  }
  record.group = found_group.id;
  found = {.id = next_series++, .trie = record.trie, .group = record.group};
  RETURN_IF_ERROR(PutAll(SeriesKind::kSeries, identity, record, found, batch));
  return found;
}

Status SeriesWriter::Remove(SeriesKind kind, uint32_t id, rocksdb::WriteBatch* batch, TenantId* tenant) {
  *tenant = 0;
  std::string bytes;
  ASSIGN_OR_RETURN(const bool there, database_.Get(Family::kSeries, SeriesRecordKey(kind, id), &bytes));
  if (!there) return OkStatus();
  ASSIGN_OR_RETURN(const SeriesRecord record, DecodeSeries(bytes));
  const std::string identity = SeriesIdentity(record);
  rocksdb::ColumnFamilyHandle* family = database_.family(Family::kSeries);
  const auto remove = [&](const std::string& key) {
    return database_.FromRocks(batch->Delete(family, key), "writing");
  };
  ASSIGN_OR_RETURN(const Found indexed, Lookup(kind, identity));
  RETURN_IF_ERROR(remove(SeriesRecordKey(kind, id)));
  RETURN_IF_ERROR(remove(EncodePosting(kind, {.tenant = record.tenant, .type = record.type, .id = id})));
  for (const SeriesRecord::Label& label : record.labels) {
    RETURN_IF_ERROR(remove(EncodePosting(kind, {record.tenant, record.type, label.name, label.value, id})));
  }
  if (indexed.id != id) return OkStatus();
  RETURN_IF_ERROR(remove(SeriesIndexKey(kind, identity)));
  IdsOf(kind).Erase(identity);
  *tenant = record.tenant;
  return OkStatus();
}

void SeriesWriter::Forget() {
  ids_.Clear();
  groups_.Clear();
  tries_.Clear();
}

void SeriesWriter::Trim() {
  ids_.Trim();
  groups_.Trim();
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

StatusOr<std::vector<uint32_t>> SeriesReader::Postings(SeriesKind kind, TenantId tenant, NameId type, NameId name,
                                                       NameId value) {
  std::vector<uint32_t> ids;
  const std::string prefix = PostingPrefix(kind, {tenant, type, name, value});
  RETURN_IF_ERROR(database_.Scan(Family::kSeries, prefix, PrefixEnd(prefix),
                                 [&](std::string_view key, std::string_view) -> StatusOr<bool> {
                                   ASSIGN_OR_RETURN(const Posting posting, DecodePosting(kind, key));
                                   ids.push_back(posting.id);
                                   return true;
                                 }));
  return ids;
}

StatusOr<std::vector<NameId>> SeriesReader::TypesOf(SeriesKind kind, TenantId tenant, const SeriesFilter& filter) {
  if (filter.type.empty()) return Distinct(PostingPrefix(kind, {tenant}));
  ASSIGN_OR_RETURN(const NameId type, names_.Find(filter.type));
  if (type == 0) return std::vector<NameId>();
  return std::vector<NameId>{type};
}

StatusOr<std::vector<uint32_t>> SeriesReader::Candidates(SeriesKind kind, TenantId tenant, NameId type,
                                                         const std::vector<LabelMatcher>& matchers) {
  // Matchers that a series without the label cannot meet narrow the search through postings; the rest is checked on
  // the loaded series by the caller.
  bool narrowed = false;
  std::vector<uint32_t> result;
  const auto narrow = [&](std::vector<uint32_t> ids) {
    std::sort(ids.begin(), ids.end());
    if (!narrowed) {
      result = std::move(ids);
      narrowed = true;
      return;
    }
    std::vector<uint32_t> both;
    std::set_intersection(result.begin(), result.end(), ids.begin(), ids.end(), std::back_inserter(both));
    result = std::move(both);
  };
  for (const LabelMatcher& matcher : matchers) {
    if (matcher.Matches("") || matcher.op() != MatchOp::kEqual) continue;
    ASSIGN_OR_RETURN(const NameId name, names_.Find(matcher.name()));
    ASSIGN_OR_RETURN(const NameId value, names_.Find(matcher.value()));
    if (name == 0 || value == 0) return std::vector<uint32_t>();
    ASSIGN_OR_RETURN(std::vector<uint32_t> ids, Postings(kind, tenant, type, name, value));
    narrow(std::move(ids));
    if (result.empty()) return result;
  }
  for (const LabelMatcher& matcher : matchers) {
    if (matcher.Matches("") || matcher.op() != MatchOp::kRegex) continue;
    ASSIGN_OR_RETURN(const NameId name, names_.Find(matcher.name()));
    if (name == 0) return std::vector<uint32_t>();
    ASSIGN_OR_RETURN(const std::vector<NameId> values, Distinct(PostingPrefix(kind, {tenant, type, name})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(values));
    std::vector<uint32_t> ids;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!matcher.Matches(texts[i])) continue;
      ASSIGN_OR_RETURN(const std::vector<uint32_t> more, Postings(kind, tenant, type, name, values[i]));
      ids.insert(ids.end(), more.begin(), more.end());
    }
    narrow(std::move(ids));
    if (result.empty()) return result;
  }
  if (narrowed) return result;
  return Postings(kind, tenant, type, 0, 0);
}

StatusOr<std::vector<std::shared_ptr<const Series>>> SeriesReader::Load(SeriesKind kind,
                                                                        const std::vector<uint32_t>& ids) {
  std::vector<std::shared_ptr<const Series>> result(ids.size());
  std::vector<size_t> absent;
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (const auto* cached = cache_.Find(CacheKey(kind, ids[i]))) {
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
    for (size_t i = begin; i < end; ++i) keys.push_back(SeriesRecordKey(kind, ids[absent[i]]));
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
      series->group = records[i].group;
      series->type = text(records[i].type);
      std::vector<profile::Label> labels;
      size_t bytes = sizeof(Series) + 32 + series->type.size();
      for (const SeriesRecord::Label& label : records[i].labels) {
        labels.push_back({text(label.name), text(label.value)});
        bytes += sizeof(profile::Label) + labels.back().name.size() + labels.back().value.size();
      }
      ASSIGN_OR_RETURN(series->labels, profile::LabelSet::Make(std::move(labels)));
      result[absent[begin + i]] = series;
      cache_.Insert(CacheKey(kind, series->id), series, bytes);
    }
    cache_.Trim();
  }
  return result;
}

StatusOr<std::vector<Series>> SeriesReader::Find(SeriesKind kind, TenantId tenant, const SeriesFilter& filter) {
  std::vector<Series> result;
  if (tenant == 0) return result;
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(kind, tenant, filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, Candidates(kind, tenant, type, filter.matchers));
    ASSIGN_OR_RETURN(const auto loaded, Load(kind, ids));
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

StatusOr<std::vector<std::string>> SeriesReader::Types(TenantId tenant) {
  ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct(PostingPrefix(SeriesKind::kSeries, {tenant})));
  ASSIGN_OR_RETURN(std::vector<std::string> names, names_.Names(ids));
  std::sort(names.begin(), names.end());
  return names;
}

StatusOr<std::vector<std::string>> SeriesReader::LabelNames(TenantId tenant, const SeriesFilter& filter) {
  constexpr SeriesKind kind = SeriesKind::kSeries;
  std::set<std::string> names;
  if (!filter.matchers.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Series> all, Find(kind, tenant, filter));
    for (const Series& series : all) {
      for (const profile::Label& label : series.labels.labels()) names.insert(label.name);
    }
    return std::vector<std::string>(names.begin(), names.end());
  }
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(kind, tenant, filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct(PostingPrefix(kind, {tenant, type})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(ids));
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != 0) names.insert(texts[i]);
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

StatusOr<std::vector<std::string>> SeriesReader::LabelValues(TenantId tenant, std::string_view name,
                                                             const SeriesFilter& filter) {
  constexpr SeriesKind kind = SeriesKind::kSeries;
  std::set<std::string> values;
  if (!filter.matchers.empty()) {
    ASSIGN_OR_RETURN(const std::vector<Series> all, Find(kind, tenant, filter));
    for (const Series& series : all) {
      if (const std::string_view value = series.labels.Get(name); !value.empty()) values.emplace(value);
    }
    return std::vector<std::string>(values.begin(), values.end());
  }
  ASSIGN_OR_RETURN(const NameId name_id, names_.Find(name));
  if (name_id == 0) return std::vector<std::string>();
  ASSIGN_OR_RETURN(const std::vector<NameId> types, TypesOf(kind, tenant, filter));
  for (const NameId type : types) {
    ASSIGN_OR_RETURN(const std::vector<NameId> ids, Distinct(PostingPrefix(kind, {tenant, type, name_id})));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, names_.Names(ids));
    values.insert(texts.begin(), texts.end());
  }
  return std::vector<std::string>(values.begin(), values.end());
}

StatusOr<std::vector<uint32_t>> SeriesReader::AllIds(SeriesKind kind) {
  std::vector<uint32_t> ids;
  const std::string prefix(1, RecordLetter(kind));
  RETURN_IF_ERROR(database_.Scan(Family::kSeries, prefix, PrefixEnd(prefix),
                                 [&](std::string_view key, std::string_view) -> StatusOr<bool> {
                                   Decoder in(key.substr(1));
                                   ids.push_back(in.BigEndian32());
                                   if (!in.ok() || !in.done()) return DataLossError("damaged series key");
                                   return true;
                                 }));
  return ids;
}

void SeriesReader::Erase(SeriesKind kind, uint32_t id) {
  const std::lock_guard lock(mutex_);
  cache_.Erase(CacheKey(kind, id));
}

uint64_t SeriesReader::bytes() const {
  const std::lock_guard lock(mutex_);
  return cache_.bytes();
}

}  // namespace pyrometer::store
