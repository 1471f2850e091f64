"""Words by script: what stands between blanks, and characters where a script writes none."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_trainer.evaluation.matching import is_exact, is_right
from remote_trainer.text_statistics import distinct_3, endless, loops, split_words, words_of

DATA = Path(__file__).parents[2] / "data"
SPACED = "aZé9ßİж Ωا שह한글-—.,:;!?'\"`*$%_/()[]{}<>|^~+=#@&\n\t\u00a0\u200b…“”«»½①ﬁ２，。、（）・😀👨\u200d👩\u0301"


def between_blanks(text: str) -> tuple[str, ...]:
    """Words as they are defined for scripts with blanks, written once more."""

    def punctuation(character: str) -> bool:
        return character == "`" or unicodedata.category(character)[0] == "P"

    def bare(word: str) -> str:
        while word and punctuation(word[-1]):
            word = word[:-1]
        while word and punctuation(word[0]) and not (word[0] == "-" and word[1:2].isdigit()):
            word = word[1:]
        return word

    words = tuple(unicodedata.normalize("NFKC", text).lower().split())
    return tuple(bare(word) for word in words if bare(word)) or words


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(SPACED), max_size=40))
def test_scripts_with_blanks_keep_their_words(text: str) -> None:
    assert words_of(text) == between_blanks(text)
    assert split_words(text) == text.split()


def test_the_shipped_rows_keep_their_words() -> None:
    texts = [
        value
        for file in sorted(DATA.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
        for value in json.loads(line).values()
        if isinstance(value, str)
    ]
    assert len(texts) > 500
    assert [words_of(text) for text in texts] == [between_blanks(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("东京是首都。", "东 京 是 首 都"),
        ("答えはパリです", "答 え は パリ で す"),
        ("答えはﾊﾟﾘです", "答 え は パリ で す"),  # half width, voiced mark apart
        ("ラーメン・カレー", "ラーメン カレー"),
        ("らーめん", "ら ー め ん"),
        ("The answer is 東京.", "the answer is 東 京"),
        ("是42。", "是 42"),
        ("42岁", "42 岁"),
        ("大约－３．５度，约1,000元", "大 约 -3.5 度 约 1,000 元"),
        ("晚上12：30到", "晚 上 12:30 到"),
        ("答案：B", "答 案 b"),
        ("首都是Paris，London不是", "首 都 是 paris london 不 是"),
        ("Ｔ恤don't U.S.A.的", "t 恤 don't u.s.a 的"),
        ("平成㍻", "平 成 平 成"),
        ("东京😀", "东 京 😀"),
        ("๔๒ ปี", "๔๒ ปี"),  # Thai digits are a number
        ("ກຸງປາຣີ", "ກຸ ງ ປ າ ຣີ"),
        ("서울은 首都입니다", "서울은 首 都 입니다"),
        ("。、", "。、"),
    ],
)
def test_scripts_without_blanks_are_read_by_character(text: str, words: str) -> None:
    assert words_of(text) == tuple(words.split())


@pytest.mark.parametrize(
    ("completion", "reference", "right"),
    [
        ("西班牙的首都是马德里。", "马德里", True),
        ("スペインの首都はマドリードです。", "マドリード", True),
        ("マドリードっ子", "マドリード", True),
        ("マドリードタワー", "マドリード", False),  # a run of Katakana is one word
        ("เมืองหลวงคือมาดริดครับ", "มาดริด", True),
        ("คำตอบคือ น้ำ", "น้ำ", True),
        ("រាជធានីគឺម៉ាឌ្រីត។", "ម៉ាឌ្រីត", True),
        ("រាជធានី\u200bគឺ\u200bម៉ាឌ្រីត", "គឺម៉ាឌ្រីត", True),  # blanks without width
        ("ນະຄອນຫຼວງແມ່ນມາດຣິດ", "ມາດຣິດ", True),
        ("မြို့တော်မှာ မက်ဒရစ်ဖြစ်သည်။", "မက်ဒရစ်", True),
        ("西班牙的首都是巴黎。", "马德里", False),
        ("答案是142", "42", False),
        ("กา", "ก", True),  # at the border of characters
        ("กิ", "ก", False),  # but no character without its marks
        ("是Parisian", "Paris", False),
    ],
)
def test_an_answer_in_a_sentence_is_right(completion: str, reference: str, right: bool) -> None:
    assert is_right(completion, reference, []) is right


def rival(*answers: str) -> set[tuple[str, ...]]:
    return {words_of(answer) for answer in answers}


def test_rivals_are_read_from_the_left() -> None:
    """東京都 is Tokyo (東京) and not Kyoto (京都), though the characters of both are there."""
    cities = rival("東京", "京都")
    assert is_right("首都は東京都です", "東京", cities)
    assert not is_right("首都は東京都です", "京都", cities)
    assert is_right("京都です", "京都", cities)
    assert not is_right("東京か京都", "東京", cities)
    words = rival("是", "不是")
    assert is_right("不是", "不是", words)
    assert not is_right("不是", "是", words)
    # With blanks a rival that overlaps is said, as ever.
    assert not is_right("New York City", "New York", rival("New York", "York City"))


def test_a_long_loop_is_judged_in_no_time() -> None:
    assert is_right("哈哈" * 5000, "哈哈", rival("哈哈", "哈哈哈")) is False


def test_exact_is_the_whole_text_with_or_without_blanks() -> None:
    assert is_exact("「巴黎」。", "巴黎")
    assert is_exact("巴 黎", "巴黎")
    assert not is_exact("是巴黎", "巴黎")


def value(text: str, answer: str, **options: object) -> float:
    from test_text_rewards import one

    found = one(text, answer, **options)
    assert found is not None
    return found


def test_token_f1_by_hand() -> None:
    # 6 characters said, 2 wanted, 2 in common
    assert value("首都是巴黎啊。", "巴黎", type="token_f1") == pytest.approx(2 * 2 / (6 + 2))
    assert value("北京", "东京", type="token_f1") == pytest.approx(2 * 1 / (2 + 2))
    assert value("巴黎。", "巴黎", type="exact_match") == 1.0


def test_repetition_sees_characters() -> None:
    # 今天今天今天: trigrams 今天今, 天今天, 今天今, 天今天
    assert value("今天今天今天", "x", type="repetition") == pytest.approx(2 / 4 - 1)


def test_majority_vote_compares_characters() -> None:
    from test_text_rewards import reward_of, sample

    reward = reward_of(type="majority_vote")
    said = [sample("巴黎。"), sample("「巴黎」"), sample("里昂")]
    plans = reward.plans(said, lambda text, special_tokens=False: ())
    assert [plan.value() for plan in plans if plan] == [1.0, 1.0, 0.0]


def test_variety_counts_characters() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(102))
    assert distinct_3([text]) == 1.0
    assert distinct_3([text[:51] * 2]) == pytest.approx(51 / 100)


HONEST = [
    "การสังเคราะห์ด้วยแสงเป็นกระบวนการที่พืชใช้พลังงานจากแสงอาทิตย์เพื่อเปลี่ยนคาร์บอนไดออกไซด์และน้ำให้เป็นน้ำตาลและ"
    "ออกซิเจน กระบวนการนี้เกิดขึ้นในคลอโรพลาสต์ซึ่งมีสารสีเขียวที่เรียกว่าคลอโรฟิลล์ พืชดูดซับน้ำจากดินผ่านราก",
    "အလင်းမှီစုဖွဲ့ခြင်းသည် အပင်များက နေရောင်ခြည်စွမ်းအင်ကို အသုံးပြု၍ ကာဗွန်ဒိုင်အောက်ဆိုဒ်နှင့် ရေကို သကြားနှင့် "
    "အောက်ဆီဂျင်အဖြစ် ပြောင်းလဲသော လုပ်ငန်းစဉ်ဖြစ်သည်။ အပင်များသည် မြေကြီးမှ ရေကို အမြစ်များဖြင့် စုပ်ယူကြသည်။",
    "प्रकाश संश्लेषण वह प्रक्रिया है जिसमें पौधे सूर्य के प्रकाश की ऊर्जा का उपयोग करके कार्बन डाइऑक्साइड और पानी को शर्करा और "
    "ऑक्सीजन में बदलते हैं। यह प्रक्रिया पत्तियों में होती है जहाँ क्लोरोफिल नामक हरा पदार्थ होता है। पौधे जड़ों से पानी सोखते हैं।",
    "".join(chr(0x4E00 + 7 * i % 900) for i in range(700)),  # more characters than a byte can tell
]
CAPITALS = ["ฝรั่งเศส ปารีส", "สเปน มาดริด", "อิตาลี โรม", "เยอรมนี เบอร์ลิน", "นอร์เวย์ ออสโล", "ไทย กรุงเทพฯ",
            "ลาว เวียงจันทน์", "กัมพูชา พนมเปญ", "ญี่ปุ่น โตเกียว", "จีน ปักกิ่ง", "เวียดนาม ฮานอย", "อินเดีย นิวเดลี"]  # fmt: skip


def test_loops_without_blanks() -> None:
    assert loops("我不知道。" * 40)
    assert endless("我不知道这个问题的答案是什么。" * 14)
    assert endless("ฉันไม่รู้" * 20)
    listed = ["เมืองหลวงของ{}คือ{}".format(*pair.split()) for pair in CAPITALS]
    assert not endless("".join(listed))
    honest = (
        "光合作用是绿色植物利用光能把二氧化碳和水转化为有机物并释放氧气的过程。它主要发生在叶绿体中，"
        "分为光反应和暗反应两个阶段。光反应在类囊体膜上进行，产生能量载体；暗反应在基质中进行，利用这些能量合成糖类。"
    )
    assert not loops(honest)
    assert not endless(honest)


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_is_no_loop_in_any_script(text: str) -> None:
    assert not loops(text)
    assert loops(text * 5)
    assert loops(text[:12] * 20)
